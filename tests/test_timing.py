"""What a run takes: its pace, its estimate, its limit; schedules that are scaled to a run's length."""

import io
import json
import types

import pytest

from ncl_jax import cli
from ncl_jax.cli import arguments
from ncl_jax.cli.arguments import set_fields
from ncl_jax.config import base_config, schedule
from ncl_jax.config.fields import differences, flatten
from ncl_jax.errors import ConfigError
from ncl_jax.runs import budget, durations, timing, trunk
from ncl_jax.runs.timing import Pace
from ncl_jax.storage.directory import RunDir
from ncl_jax.storage.log import RunLog


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def paced(seconds, steps=1, calls=12, **fields):
    """A pace of calls that take so many seconds each, after a first one that takes an hour."""
    clock = Clock()
    pace = Pace(clock=clock, began=0.0, **fields)
    clock.now = 3600.0
    assert not pace.lap(steps)
    for _ in range(calls):
        clock.now += seconds
        assert pace.lap(steps)
    return pace, clock


def config_of(epochs=30, every=6, minutes=0.0, **fields):
    config = base_config()
    config.epochs, config.eval_every, config.eval_minutes = epochs, every, minutes
    config.optim.milestones = ()
    config.update_from_flattened_dict(fields)
    return config


def test_the_first_call_does_not_count():
    pace, _ = paced(0.5, steps=5)
    assert pace.step == pytest.approx(0.1)


def test_what_lies_between_epochs_does_not_count():
    pace, clock = paced(0.5)
    clock.now += 1000
    pace.start()
    clock.now += 0.5
    pace.lap(1)
    assert pace.step == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seconds", "calls", "known"), [(9.0, 1, False), (9.0, 2, True), (0.1, 9, False), (0.1, 10, True)]
)
def test_an_estimate_takes_two_calls_that_are_long_or_ten(seconds, calls, known):
    assert paced(seconds, calls=calls)[0].is_known is known


@pytest.mark.parametrize(
    ("seconds", "at_once", "ahead"), [(0.0001, 20, 2), (0.001, 20, 2), (0.1, 10, 0), (0.4, 2, 0), (7.0, 1, 0)]
)
def test_slow_steps_are_sent_one_by_one(seconds, at_once, ahead):
    pace, _ = paced(seconds, steps_per_call=20)
    assert (pace.at_once, pace.ahead) == (at_once, ahead)


def test_nothing_is_sent_ahead_before_the_pace_is_known():
    assert (Pace(20).ahead, Pace(20).at_once) == (0, 20)


def test_evaluations_by_the_first_epoch_every_nth_and_the_last():
    config = config_of(epochs=15)
    expected = [epoch for epoch in range(1, 16) if timing.is_evaluated(config, epoch, 15)]
    assert expected == [1, 6, 12, 15]
    for done in range(16):
        assert timing.num_evaluations(config, done, 15) == sum(epoch > done for epoch in expected)


def test_an_estimate_is_the_epochs_and_the_evaluations():
    found = timing.estimate(config_of(epochs=15), 0, 15, 60.0, 10.0)
    assert (found.epochs, found.evaluations, found.seconds) == (15, 4, 15 * 60 + 4 * 10)
    assert timing.estimate(config_of(epochs=15, minutes=2.0), 0, 15, 60.0, 10.0).evaluations == 7
    assert timing.estimate(config_of(epochs=15, minutes=0.01), 5, 15, 60.0, 10.0).evaluations == 10


def test_an_unmeasured_evaluation_is_taken_from_a_step():
    pace, clock = paced(0.6)
    assert pace.expected_evaluation(images=640, batch=64) == pytest.approx(2.0)
    for seconds in (500, 3):  # the first one is compiled
        pace.start_evaluation()
        clock.now += seconds
        pace.end_evaluation()
    assert pace.expected_evaluation(images=640, batch=64) == 3


def test_checkpoints_and_evaluations_are_due_by_the_clock():
    pace, clock = paced(1.0)
    pace.note_saved()
    pace.end_evaluation()
    clock.now += 59
    assert not pace.save_due(1.0) and not pace.evaluation_due(1.0)
    clock.now += 1
    assert pace.save_due(1.0) and pace.evaluation_due(1.0)
    assert not pace.save_due(0.0) and not pace.evaluation_due(0.0)


def test_what_is_left_of_a_limit():
    pace, clock = paced(1.0, limit=4000.0)
    assert pace.left() == 4000 - clock.now
    assert paced(1.0)[0].left() == float("inf")


@pytest.mark.parametrize(
    ("cached", "limit", "views", "said"),
    [
        (False, 1000.0, 4, "about 8 min"), (False, 600.0, 3, "3 of the 4"), (False, 300.0, 1, "1 of the 4"),
        (False, 50.0, 1, "warning"), (True, 1.0, 4, ""),
    ],
)  # fmt: skip
def test_as_many_views_as_their_features_have_time_for(monkeypatch, capfd, cached, limit, views, said):
    monkeypatch.setattr(
        trunk, "images_to_compute", lambda *args: [0 if cached else 100 * number + 100 for number in args[-1]]
    )
    monkeypatch.setattr(trunk, "seconds_for_image", lambda *_: 1.0)
    config, pace = config_of(), Pace(limit=limit, clock=lambda: 0.0, began=0.0)
    plan = types.SimpleNamespace(loading=types.SimpleNamespace(cached_views=4))
    data = types.SimpleNamespace(train=None)
    assert budget.fewer_views(plan, None, config, data, pace).data.cached_views == views
    printed = capfd.readouterr().out
    assert said in printed and bool(printed) is not cached and config.data.cached_views == 4


@pytest.mark.parametrize("seconds", [5, 100, 1000, 1e5, 1e9])
@pytest.mark.parametrize("evaluation", [0.0, 7.0, 200.0])
def test_as_many_epochs_as_fit(seconds, evaluation):
    config = config_of(epochs=40)
    epochs = budget.most_epochs(config, seconds, 10.0, evaluation)

    def needed(number):
        scaled = schedule.shortened(config, number)
        return timing.estimate(scaled, 0, number, 10.0, evaluation).seconds

    assert 1 <= epochs <= 40 and (epochs == 1 or needed(epochs) <= seconds)
    assert epochs == 40 or needed(min(40, epochs + 8)) > seconds


def test_only_long_runs_are_told_what_would_be_shorter():
    config = config_of()
    lines = [durations.estimate(timing.Estimate(30, seconds / 30, 0, 0.0), config) for seconds in (10, 600, 7200)]
    assert [len(found) for found in lines] == [0, 1, 2]
    assert "10 min" in lines[1][0] and "2 h 00 min" in lines[2][0] and "--time=" in lines[2][1]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1h1m1s", 3661)]
)
def test_durations(text, seconds):
    assert arguments.seconds("--time", text) == seconds


BAD = ["30", "m", "", "-5m", "0s", "0.5s", "1e3s", "30 m", "30min", "5m2h", "nan", "inf", "9000h", "\u0661h", "1h1h"]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_duration_is_named(text):
    with pytest.raises(ConfigError, match="--time="):
        arguments.seconds("--time", text)


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


def test_the_bar_counts_neither_compilation_nor_what_lies_between_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    log, clock = RunLog(RunDir(tmp_path), 0, 200, 1), Clock()
    bar, clock.now = log._bar, log._bar._time()
    bar._time, began = clock, clock.now
    for _ in range(2):
        clock.now += 3600
        log.start(100)
        for step in range(20):
            clock.now += 600 if step == 0 and bar.n == 0 else 2
            log.advance(1, "", timed=bar.n > 0)
    shown = bar.format_dict
    log.close()
    assert (shown["n"], shown["total"]) == (40, 100) and clock.now - began > 7200
    assert shown["rate"] == pytest.approx(0.5) and shown["elapsed"] == pytest.approx(39 * 2)


# Schedules


@pytest.mark.parametrize(
    ("epochs", "steps", "ramp", "warmup"),
    [(30, 10, 150, 5), (30, 20, 300, 5), (5, 28, 70, 5), (4, 100, 200, 2), (3, 100, 150, 2), (1, 1, 1, 2)],
)
def test_what_cannot_finish_is_scaled(epochs, steps, ramp, warmup):
    config = config_of(epochs=epochs, **{"loss.ramp_steps": 300})
    fitted = schedule.finishing(config, steps)
    assert (fitted.loss.ramp_steps, fitted.optim.warmup_epochs) == (ramp, warmup)
    assert (config.loss.ramp_steps, config.optim.warmup_epochs) == (300, 5)


def test_a_run_keeps_what_was_scaled_when_it_began():
    given = config_of(epochs=3, **{"loss.ramp_steps": 300})
    fitted = schedule.finishing(given, 10)
    stored = base_config()
    stored.update(json.loads(json.dumps({**fitted.to_dict()})))
    stored.unlock()
    stored.update(json.loads(json.dumps(schedule.noted(given, fitted))))
    again, noted = schedule.as_begun(given, stored)
    assert again == fitted and noted == {"scaled": {"loss": {"ramp_steps": 300}, "optim": {"warmup_epochs": 5}}}
    other = config_of(epochs=3, **{"loss.ramp_steps": 200})
    changed = differences(stored, schedule.as_begun(other, stored)[0])
    assert changed == ["loss.ramp_steps: 15 saved, 200 given"]


def test_a_run_of_before_is_not_scaled():
    stored = config_of(epochs=3)
    assert schedule.as_begun(stored, stored) == (stored, {}) and schedule.as_begun(stored, None) == (stored, {})


@pytest.mark.parametrize(
    ("fields", "milestones"),
    [
        (["epochs=20"], (16, 18)),
        (["epochs=370"], (320, 360)),
        (["epochs=20", "optim.milestones=(5,)"], (5,)),
        (["optim.schedule=cosine", "epochs=20"], (320, 360)),
    ],
)
def test_milestones_follow_the_epochs_that_are_set_alone(fields, milestones):
    config = base_config()
    set_fields(config, [f"--config.{field}" for field in fields])
    assert tuple(config.optim.milestones) == milestones


def test_a_shortened_schedule_is_that_of_the_argument():
    from ncl_jax.config import cifar_long_tailed

    whole, short = (cifar_long_tailed(f"epochs={epochs}", "cifar10", num_hard=3) for epochs in (400, 20))
    assert flatten(schedule.shortened(whole, 20)) == flatten(short)


def test_a_run_that_is_there_is_offered(tmp_path):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    message, code = cli.attempt("train", [f"--workdir={tmp_path}"])
    assert code == 1 and f"--resume {tmp_path}" in message and "--config" in message
