"""The block that a search round leaves."""

from arguments import Arguments
from runs.round_block import Standing, round_block
from search.protocol import Usage
from search.reward_function import RewardFunction


class Search:
    """What was proposed, and what it cost."""

    def __init__(self, functions, tokens):
        self.functions = functions
        self.usage = [Usage(1, *tokens)] * 2

    def cost(self, price_in, price_out):
        spent = self.usage[0]
        total = {"tokens_in": 2 * spent.tokens_in, "tokens_out": 2 * spent.tokens_out}
        money = (total["tokens_in"] * price_in + total["tokens_out"] * price_out) / 1e6
        return {**total, "cost": money, "rounds": [vars(usage) for usage in self.usage]}


def function(number, round, kind="", parents=()):
    made = RewardFunction(number, round, list(parents), "", "", [], accepted=not kind, kind=kind)
    return made


def test_the_first_population_has_its_answers_alone():
    functions = [function(0, 0), function(1, 0), function(2, 0, "surplus")]
    block = round_block(Arguments("from_scratch"), Search(functions, (0, 0)), 0)
    assert block == "search round 0: 3 candidates, 2 accepted, 0 rejected, 1 not needed"


def test_a_round_says_who_stands_where_and_what_became_of_each():
    kinds = ["", "", "syntax", "duplicate", "duplicate", "surplus"]
    first = [function(number, 0) for number in range(4)]
    second = [function(4 + number, 1, kind, (2, 0)) for number, kind in enumerate(kinds)]
    standings = [
        Standing(2, 2, 0.8, 0.9, True),
        Standing(4, None, 0.6, 0.6, True),
        Standing(0, 0, 0.5, 1.0, False),
        Standing(1, 1, 0.0, 0.1, False),
        Standing(3, 3, None, 0.4, False),
    ]
    after = {0: second[0], 1: first[1], 2: first[2], 3: second[1]}
    args = Arguments("with_init", price_in=1.0, price_out=10.0)
    block = round_block(args, Search([*first, *second], (5_000, 1_000)), 1, standings, after)
    assert block.splitlines() == [
        "search round 1: 6 candidates, 2 accepted, 3 rejected (2 duplicate, 1 syntax), 1 not needed",
        "   1. agent 2      success now  80%, best so far  90%  elite, with function 2",
        "   2. human agent  success now  60%, best so far  60%  elite, with the human-designed reward",
        "   3. agent 0      success now  50%, best so far 100%  function 0 replaced by 4, written from 2 and 0",
        "   4. agent 1      success now   0%, best so far  10%  keeps function 1: no new one came",
        "   -. agent 3      out                                 function 3 replaced by 5, written from 2 and 0",
        "  5,000 tokens in and 1,000 out in this round; 10,000 tokens in and 2,000 out so far, cost 0.03",
    ]
