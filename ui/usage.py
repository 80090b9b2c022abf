"""What was used: sums first, then by day as charts, by model and by user as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import altair as alt
import pandas as pd
import streamlit as st

from glm_backend.services import Services
from glm_backend.store.usage import Used
from glm_backend.store.values import Everybody, Reader
from ui.labels import t, t_or

#: Days that are looked at; None is all of them.
_PERIODS: dict[str, int | None] = {"month": 30, "quarter": 90, "year": 365, "all": None}
_HEIGHT = 210
_COLOURS = ["#2f6f5e", "#c2703d", "#6b7f8c", "#b9a24c", "#8c6b86", "#4c7c9c"]
_UNKNOWN = "#a9b1ae"
_GOOD, _BAD = "#4c9c86", "#c2703d"
_DAILY = ("day", "model", "answers", "tokens", "speed", "good", "bad")


def draw_usage(services: Services) -> None:
    """One's own usage; an administrator may look at everybody's, and at each user's."""
    reader: Reader = services.user_id
    if services.is_admin and len(services.store.user_names()) > 1:
        everybody = st.toggle(t("usage.everybody"), key="usage_everybody")
        reader = Everybody.EVERYBODY if everybody else reader
    period = st.segmented_control(
        t("usage.period"),
        list(_PERIODS),
        default="month",
        required=True,
        format_func=lambda name: t(f"usage.{name}"),
        key="usage_period",
        label_visibility="collapsed",
    )
    days = _PERIODS[period or "month"]
    since = None if days is None else (datetime.now(UTC) - timedelta(days=days - 1)).date()
    whole = services.store.usage(reader, since=since)
    if not whole or not whole[0].questions:
        st.info(t("usage.nothing"))
        return
    _draw_sums(whole[0])
    by_day = services.store.usage(reader, "day", "model", since=since)
    _draw_charts(by_day, since)
    st.caption(t("usage.utc"))
    by_model = services.store.usage(reader, "model", "quantization", since=since)
    by_model.sort(key=lambda used: not used.model)  # what names none is the last
    _draw_table(by_model, "usage_models", "model", "quantization")
    if reader is Everybody.EVERYBODY:
        by_user = services.store.usage(reader, "user", since=since)
        _draw_table(by_user, "usage_users", "user")


def _draw_sums(whole: Used) -> None:
    rated = whole.rated_good + whole.rated_bad
    sums = {
        "questions": f"{whole.questions:,}",
        "answers": f"{whole.answers:,}",
        "tokens": _short(whole.prompt_tokens + whole.completion_tokens),
        "speed": "–" if whole.tokens_per_s is None else f"{whole.tokens_per_s:.1f}",
        "good": f"{whole.rated_good / rated:.0%}" if rated else "–",
    }
    with st.container(key="usage_sums", horizontal=True, gap="medium"):
        for name, value in sums.items():
            st.metric(t(f"usage.{name}"), value, width="content", help=t(f"usage.{name}_help"))


def _short(number: int) -> str:
    """12,345 or 12.3 M."""
    return f"{number / 1e6:,.1f} M" if number >= 10**6 else f"{number:,}"


def _draw_charts(by_day: Sequence[Used], since: date | None) -> None:
    data, day = daily(by_day), _days(since)
    left, right = st.columns(2, gap="large")
    with left:
        _draw_chart("usage.messages_by_day", _bars(data, "answers", day))
        _draw_chart("usage.speed_by_day", _lines(data, day))
    with right:
        _draw_chart("usage.tokens_by_day", _bars(data, "tokens", day))
        _draw_chart("usage.ratings_by_day", _rating_bars(data, day))


def daily(by_day: Sequence[Used]) -> pd.DataFrame:
    """One row a day and model that answered, which an import may not name."""
    rows = [
        (
            pd.Timestamp(used.day),
            used.model or t("usage.unknown"),
            used.answers,
            used.prompt_tokens + used.completion_tokens,
            used.tokens_per_s,
            used.rated_good,
            -used.rated_bad,
        )
        for used in by_day
        if used.answers
    ]
    return pd.DataFrame(rows, columns=list(_DAILY))


def _draw_chart(title: str, chart: alt.Chart) -> None:
    st.markdown(f"**{t(title)}**")
    st.altair_chart(chart.properties(height=_HEIGHT), width="stretch", alt=t(title))


def _days(since: date | None) -> alt.X:
    """The axis of days: the whole period that was chosen, where it has a beginning."""
    axis = alt.Axis(format="%m-%d", labelOverlap=True)
    day = alt.X("yearmonthdate(day):T", title=None, axis=axis)
    if since is None:
        return day
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    ends = [alt.DateTime(year=d.year, month=d.month, date=d.day) for d in (since, tomorrow)]
    return day.scale(domain=ends)


def _colour(data: pd.DataFrame, drawn: pd.DataFrame) -> alt.Color:
    """Each model has the same colour in every chart; named are those that are drawn in this one."""
    unknown = t("usage.unknown")
    models = sorted({*data["model"]} - {unknown})
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(models))]
    if unknown in {*data["model"]}:
        models, colours = [*models, unknown], [*colours, _UNKNOWN]
    named = [model for model in models if model in {*drawn["model"]}]
    legend = alt.Legend(orient="top", title=None, labelLimit=160, padding=0, offset=6, values=named)
    return alt.Color("model:N", legend=legend, scale=alt.Scale(domain=models, range=colours))


def _bars(data: pd.DataFrame, column: str, day: alt.X) -> alt.Chart:
    return (
        alt.Chart(data)
        .mark_bar()
        .encode(
            x=day,
            y=alt.Y(
                f"sum({column}):Q",
                title=None,
                axis=alt.Axis(format="~s", tickCount=4, tickMinStep=1),
            ),
            color=_colour(data, data),
            tooltip=[
                alt.Tooltip("day:T", title=t("usage.day"), format="%Y-%m-%d"),
                alt.Tooltip("model:N", title=t("history.model")),
                alt.Tooltip(f"sum({column}):Q", title=t(f"usage.{column}"), format=","),
            ],
        )
    )


def _lines(data: pd.DataFrame, day: alt.X) -> alt.Chart:
    timed = data.dropna(subset=["speed"])
    return (
        alt.Chart(timed)
        .mark_line(point=True)
        .encode(
            x=day,
            y=alt.Y("mean(speed):Q", title=None, axis=alt.Axis(tickCount=4)),
            color=_colour(data, timed),
            tooltip=[
                alt.Tooltip("day:T", title=t("usage.day"), format="%Y-%m-%d"),
                alt.Tooltip("model:N", title=t("history.model")),
                alt.Tooltip("mean(speed):Q", title=t("usage.speed"), format=".1f"),
            ],
        )
    )


def _rating_bars(data: pd.DataFrame, day: alt.X) -> alt.Chart:
    names = {"good": t("history.rated_good"), "bad": t("history.rated_bad")}
    tall = data.melt("day", list(names), "rating", "count").replace({"rating": names})
    scale = alt.Scale(domain=list(names.values()), range=[_GOOD, _BAD])
    return (
        alt.Chart(tall)
        .mark_bar()
        .encode(
            x=day,
            y=alt.Y(
                "sum(count):Q", title=None, axis=alt.Axis(format="d", tickCount=4, tickMinStep=1)
            ),
            color=alt.Color(
                "rating:N",
                legend=alt.Legend(orient="top", title=None, padding=0, offset=6),
                scale=scale,
            ),
        )
    )


def _draw_table(rows: Sequence[Used], key: str, *kinds: str) -> None:
    table = pd.DataFrame(
        {
            **{t(f"history.{kind}"): _named(row, kind) for kind in kinds},
            t("usage.questions"): row.questions,
            t("usage.answers"): row.answers,
            t("usage.tokens"): row.prompt_tokens + row.completion_tokens,
            t("usage.speed"): row.tokens_per_s,
            t("history.rated_good"): row.rated_good,
            t("history.rated_bad"): row.rated_bad,
        }
        for row in rows
    )
    numbers = st.column_config.NumberColumn(format="localized")  # 1,234
    counts = ("usage.questions", "usage.answers", "usage.tokens")
    counts += ("history.rated_good", "history.rated_bad")
    speed = st.column_config.NumberColumn(format="%.1f")
    with st.container(key=key):
        st.dataframe(
            table,
            hide_index=True,
            height="content",
            column_config={**{t(key): numbers for key in counts}, t("usage.speed"): speed},
        )


def _named(row: Used, kind: str) -> str:
    value = str(getattr(row, kind))
    if kind == "model" and not value:
        return t("usage.unknown")
    return t_or(f"quantization.{value}", value) if kind == "quantization" and value else value
