"""A model that waits for its turn among other runs: the wait costs no deadline, and a spent budget ends the search."""

import socket
import threading
import time

import pytest

from chat_client import MESSAGES, request
from chat_server import completion, failure
from search.connect import connect
from search.protocol import BudgetSpent, ServiceAway
from search.turns import VARIABLE, Turns


class Told:
    """Turns that wait so long each, and remember what they were asked."""

    def __init__(self, *seconds):
        self.seconds = list(seconds)
        self.asked, self.given = [], []

    def ask(self, tokens):
        if not self.seconds:
            raise BudgetSpent("all requests of the sweep are used up")
        self.asked.append(tokens)
        return len(self.asked), self.seconds.pop(0)

    def used(self, number, tokens):
        self.given.append((number, tokens))


def test_waiting_for_a_turn_is_not_held_against_the_deadline(service):
    turns, lines = Told(0.0, 3.0), []
    model, _ = service(lambda body, number: completion("yes", usage=(30, 7)), turns=turns)
    model.ask(request(1))  # which loads the client
    began = time.monotonic()
    reply = model.ask(request(1, seconds=2.5, log=lines.append))
    assert reply.texts == ["yes"]
    assert reply.held == pytest.approx(3.0)
    assert time.monotonic() - began >= 3.0
    assert lines == ["the sweep lets the next request to some-model go in 3 s"]
    assert turns.asked[0] > turns.asked[1] == sum(len(message["content"]) for message in MESSAGES) // 4 + 7
    assert turns.given == [(1, 37), (2, 37)]


def test_what_waits_at_the_same_time_is_excused_once(service):
    turns = Told(0.0, 0.3, 0.3, 0.3)
    model, _ = service(lambda body, number: completion("yes"), turns=turns)
    reply = model.ask(request(4))
    assert len(reply.texts) == 4
    assert 0.3 <= reply.held < 0.5


def test_every_repetition_takes_a_turn(service):
    turns = Told(0.0, 0.0)
    answers = [failure(503, "overloaded", Retry_After="0.01"), completion("yes", usage=(30, 7))]
    model, _ = service(lambda body, number: answers[number], turns=turns)
    assert model.ask(request(1)).texts == ["yes"]
    assert turns.given == [(1, 0), (2, 37)]


def test_a_wait_that_is_broken_off_is_given_back(service):
    turns, stopped = Told(60.0), threading.Event()
    model, seen = service(completion("yes"), turns=turns)
    with pytest.raises(ServiceAway, match="asked to stop"):
        model.ask(request(1, stop=stopped.is_set, log=lambda line: stopped.set()))
    assert (seen.bodies, turns.given) == ([], [(1, 0)])


def test_the_budget_of_the_sweep_ends_the_search(service):
    model, seen = service(completion("yes"), turns=Told())
    with pytest.raises(BudgetSpent, match="of the sweep are used up"):
        model.ask(request(1))
    assert not seen.bodies


def test_a_run_of_a_sweep_asks_over_the_socket_that_it_has_inherited(service, monkeypatch):
    ours, theirs = socket.socketpair()
    monkeypatch.setenv(VARIABLE, str(theirs.detach()))
    _, seen = service(completion("yes"))
    model = connect("some-model", builtin=None)
    ours.sendall(b'{"number": 5, "seconds": 0.0}\n{}\n')
    assert model.ask(request(1)).texts == ["yes"]
    ours.close()
    with pytest.raises(ServiceAway, match="the sweep that this run takes turns in has gone"):
        model.ask(request(1))
    assert len(seen.bodies) == 1


def test_a_spent_budget_is_said_as_the_sweep_says_it():
    ours, theirs = socket.socketpair()
    ours.sendall(b'{"spent": "all 3 requests of the sweep are used up"}\n')
    with pytest.raises(BudgetSpent, match="all 3 requests of the sweep are used up"):
        Turns(theirs).ask(10)
    assert ours.recv(100) == b'{"tokens": 10}\n'
