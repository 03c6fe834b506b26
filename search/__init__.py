"""Who writes reward functions, and how their answers become checked candidates.

This package asks a model, which may be a service, a program search, a recording or a person, hands what it wrote to
`reward_code`, and tells the model what came of it. It must never run what a model wrote, know how agents learn, wait
longer than its deadline, spend more than its budget or, from scratch, show a model anything of the human reward. What a
service says is untrusted text: it reaches the log only through `errors.plain`, and never with a key in it.

Other packages use

- `by_flags.connect_by_flags`: the model that ``--model`` names; `builtin.ProgramSearch`: the one that needs no service;
  `by_flags.search_by_flags`: the search; `by_flags.opening_by_flags`: the first request; `connect.costs_tokens`,
- `rounds.RewardSearch` and its `reward_function.RewardFunction`; `choice.order_share`,
- `scoring.Experience`: the stored episodes by which candidates are judged; `scoring.sampled`: which of them,
- `feedback`: what the model is told about an agent; `tokens.tokens_of`: how long messages are,
- `protocol`: what a custom model needs: `LanguageModel`, `Request`, `Reply`, `Usage`, `ServiceAway`, `BudgetSpent`;
  `turns`: how runs that share a rate and a budget wait for each other.

They import from these modules directly, so that a run that sends no request loads no client.
"""
