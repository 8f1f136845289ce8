"""The batch lane of a job: its rows as Message Batches, at half the price, under the same journal and budgets."""
