"""The original web demo: a chat with three sliders, in Gradio (requirements-gradio.txt).

The conversation lives in the browser's session only; the dashboard is what keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gradio

from glm_backend.completion import Completer, Text
from glm_backend.context import fit
from glm_backend.engine.request import Failed, SamplingParams
from glm_backend.models.model import Message

Turns = list[Message]


def answers(
    model: Completer,
    query: str,
    turns: Turns,
    *,
    max_length: float,
    top_p: float,
    temperature: float,
) -> Iterator[Turns]:
    """The conversation with the growing answer to `query`. Errors are raised, never said.

    max_length: tokens of prompt and answer; its slider and that of top_p begin at 0, which the
    original does not survive: there the least is taken that makes sense.
    """
    asked: Turns = [*turns, {"role": "user", "content": query}]
    room = int(max_length) - model.count_tokens(asked)
    params = SamplingParams(
        temperature=temperature, top_p=max(top_p, 0.01), max_new_tokens=min(max(room, 1), 32768)
    )
    prompt = fit(model, "", asked, params)
    completion = model.complete(prompt.messages, params)
    text = ""
    try:
        for event in completion.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Text):
                text += event.text
                yield [*asked, {"role": "assistant", "content": text}]
    finally:
        completion.cancel()


def make_demo(model: Completer, title: str) -> gradio.Blocks:
    """The page, with the original's widgets and defaults."""

    def predict(
        query: str, turns: Turns, max_length: float, top_p: float, temperature: float
    ) -> Iterator[tuple[str, Turns]]:
        plain = [Message(role=m["role"], content=_plain(m["content"])) for m in turns]
        try:
            for grown in answers(
                model, query, plain, max_length=max_length, top_p=top_p, temperature=temperature
            ):
                yield "", grown
        except Exception as error:
            raise gradio.Error(str(error)) from error

    demo = gradio.Blocks(title=title, analytics_enabled=False)
    with demo:
        gradio.HTML(f"<h1 align='center'>{title}</h1>")
        chatbot = gradio.Chatbot()
        query = gradio.Textbox(show_label=False, placeholder="Input...", lines=10)
        submit = gradio.Button("Submit", variant="primary")
        clear = gradio.Button("Clear History")
        sliders = [
            gradio.Slider(0, 32768, value=8192, step=1.0, label="Maximum length"),
            gradio.Slider(0, 1, value=0.8, step=0.01, label="Top P"),
            gradio.Slider(0, 1, value=0.95, step=0.01, label="Temperature"),
        ]
        submit.click(predict, [query, chatbot, *sliders], [query, chatbot])
        clear.click(lambda: [], outputs=[chatbot])
    return demo


def launch(model: Completer, title: str) -> None:
    """Serves the page to this machine until Ctrl-C; nothing is shared."""
    make_demo(model, title).queue().launch(share=False, server_name="127.0.0.1")


def _plain(content: str | Sequence[object]) -> str:
    """The text of a message; newer versions of Gradio hand it back in parts."""
    if isinstance(content, str):
        return content
    return "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
