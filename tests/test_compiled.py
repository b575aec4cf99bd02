"""What benchmarks/compiled.py reads in the text of a compiled program."""

import sys

import pytest
from programs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
compiled = pytest.importorskip("compiled")

TEXT = """HloModule jit_advance, entry_computation_layout={()->f32[4]{0}}

%rows (param_0: u8[100,8], param_1: s32[]) -> u8[1,8] {
  %param_0 = u8[100,8]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  ROOT %dynamic-slice.1 = u8[1,8]{1,0} dynamic-slice(%param_0, %param_1, %param_1), dynamic_slice_sizes={1,8}
}

%inner_condition (loop: (s32[], f32[4])) -> pred[] {
  %loop = (s32[], f32[4]{0}) parameter(0)
  %counter = s32[] get-tuple-element(%loop), index=0
  %three = s32[] constant(3)
  ROOT %compare = pred[] compare(%counter, %three), direction=LT
}

%inner_body (loop.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %loop.1 = (s32[], f32[4]{0}) parameter(0)
  %counter.1 = s32[] get-tuple-element(%loop.1), index=0
  %values = f32[4]{0} get-tuple-element(%loop.1), index=1
  %fusion.1 = f32[4]{0} fusion(%values), kind=kLoop, metadata={op_name="a/augment/mul"}, backend_config={"estimated_cycles":"100"}
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%counter.1, %fusion.1)
}

%step (state: (s32[], f32[4], u8[100,8])) -> (s32[], f32[4], u8[100,8]) {
  %state = (s32[], f32[4]{0}, u8[100,8]{1,0}) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  %weights = f32[4]{0} get-tuple-element(%state), index=1
  %data = u8[100,8]{1,0} get-tuple-element(%state), index=2
  %copy.9 = u8[100,8]{0,1} copy(%data), backend_config={"estimated_cycles":"5000"}
  %taken = u8[1,8]{1,0} fusion(%data, %number), kind=kLoop, calls=%rows, metadata={op_name="a/take/slice"}
  %first = (s32[], f32[4]{0}) tuple(%number, %weights)
  %while.2 = (s32[], f32[4]{0}) while(%first), condition=%inner_condition, body=%inner_body
  %new = f32[4]{0} get-tuple-element(%while.2), index=1
  %gradient = f32[4]{0} fusion(%new), kind=kLoop, metadata={op_name="a/transpose(jvp(b))/mul"}, backend_config={"estimated_cycles":"7"}
  %all-reduce.1 = f32[4]{0} all-reduce(%gradient), to_apply=%add
  ROOT %tuple.2 = (s32[], f32[4]{0}, u8[100,8]{1,0}) tuple(%number, %all-reduce.1, %data)
}

ENTRY %main (begin: (s32[], f32[4], u8[100,8])) -> (s32[], f32[4], u8[100,8]) {
  %begin = (s32[], f32[4]{0}, u8[100,8]{1,0}) parameter(0)
  ROOT %while.1 = (s32[], f32[4]{0}, u8[100,8]{1,0}) while(%begin), condition=%unknown, body=%step
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def program():
    return compiled.Program(TEXT.replace("condition=%unknown", "condition=%inner_condition"))


def test_a_step_is_the_body_of_the_outermost_loop(program):
    assert program.entry == "main"
    assert program.step == "step"


def test_cycles_count_as_often_as_their_loop_turns_and_by_part(program):
    assert program.cycles("step") == {"copies and layout": 5000, "augmentation": 300, "backward": 7, "other": 0}


def test_kernels_are_counted_by_kind(program):
    assert program.kernels("step") == {"fusion": 5, "copy": 1, "all-reduce": 1}


def test_bytes_are_those_of_operands_and_results_and_of_pieces_what_is_taken(program):
    copy, taken, inner = 800 + 800, 8 + 8 + 4, 3 * (16 + 16)
    assert program.moved("step") == copy + taken + inner + (16 + 16) + (16 + 16)


def test_collectives_with_their_bytes(program):
    assert program.collectives("step") == {"all-reduce": {"count": 1, "bytes": 16}}


def test_what_gives_the_same_in_every_turn(program):
    assert [operation.name for operation in program.unchanging("step")] == ["copy.9", "taken"]


def test_bytes_of_shapes():
    assert compiled.shape_bytes("(f32[2,3]{1,0:T(8,128)}, u8[], bf16[5])") == 24 + 1 + 10
