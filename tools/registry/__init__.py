"""Rebuilds `llmkit/models/models.json` from published price tables and hand-written facts.

A ladder: `facts` (what one source says of one model) < `genai_prices`, `litellm`, `model_prices`
(the sources) < `merge` < `report` < `build` (the command).
"""
