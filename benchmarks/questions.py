"""What the benchmarks ask: sixteen questions that have little in common."""

QUESTIONS = (
    "Tell me a long story about a dragon and a lighthouse.",
    "How do I bake bread?",
    "Explain photosynthesis to a child.",
    "What should I see in Rome in three days?",
    "Write a letter to a landlord about a broken heater.",
    "Why is the sky blue?",
    "Give me a plan to learn the piano.",
    "Describe a day in the life of a medieval monk.",
    "What were the causes of the first world war?",
    "How does a refrigerator work?",
    "Write a poem about rain in the city.",
    "Compare cats and dogs as pets.",
    "How can I sleep better?",
    "What is inflation, and who gains from it?",
    "Tell me about the history of tea.",
    "Invent a new sport and its rules.",
)
