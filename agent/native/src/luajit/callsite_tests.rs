//! Names by call on functions that were made up, one instruction after the other.

use super::super::layout;
use super::super::synthetic::Synthetic;
use super::*;
use proptest::prelude::*;

/// A caller with two local variables, one upvalue and three constants.
fn caller(m: &mut Synthetic, code: &[[u8; 4]]) -> Call {
    let at = m.prototype("@/gone.lua", 1);
    for (i, bytes) in code.iter().enumerate() {
        m.put(at + prototype::BYTES as u64 + 4 * (i as u64 + 1), bytes);
    }
    let constants = m.room(64);
    for (i, text) in [&b"log"[..], b"access", b"no name; a text"]
        .iter()
        .enumerate()
    {
        let text = m.string(text);
        Synthetic::word(m, constants + 64 - 8 * (i as u64 + 1), text);
    }
    Synthetic::word(m, at + prototype::CONSTANTS as u64, constants + 64);
    m.put(at + prototype::UPVALUES as u64, &[2]);
    let upvalues = m.room(16);
    m.put(upvalues, b"first\0helper\0");
    Synthetic::word(m, at + prototype::UPVALUE_NAMES as u64, upvalues);
    let variables = m.room(32);
    // From instruction 0, for 100 instructions; the second one and a loop's own come 2 later.
    m.put(variables, b"self\0\0\x64\x03\x02\x64conf\0\0\x64\0");
    Synthetic::word(m, at + prototype::VARIABLES as u64, variables);
    m.half(at + prototype::SIZE as u64, 0x1_0000);
    let mut head = [0; prototype::BYTES];
    m.read(at, &mut head);
    Call {
        prototype: at,
        key: names::key(&head),
        instruction: 0,
    }
}

const CODE: [[u8; 4]; 17] = [
    [bytecode::GGET, 5, 0, 0],
    [bytecode::CALL, 5, 1, 1],
    [bytecode::MOV, 8, 2, 0],
    [bytecode::TGETS, 6, 1, 2],
    [bytecode::CALL, 6, 1, 1],
    [bytecode::UGET, 7, 1, 0],
    [bytecode::CALLM, 7, 1, 1],
    [bytecode::MOV, 9, 2, 0],
    [bytecode::CALL, 9, 1, 1],
    [bytecode::KNIL, 10, 12, 0],
    [bytecode::CALL, 11, 1, 1],
    [56, 13, 0, 1], // A field whose name is computed.
    [bytecode::CALL, 13, 1, 1],
    [bytecode::TGETS, 14, 2, 2],
    [bytecode::CALL, 14, 1, 1],
    [bytecode::MOV, 15, 0, 0],
    [bytecode::ITERC, 18, 1, 1],
];

#[test]
fn a_call_s_slot_is_a_local_a_global_a_field_or_an_upvalue() {
    let mut m = Synthetic::default();
    let call = caller(&mut m, &CODE);
    let of = |m: &Synthetic, instruction| {
        name(
            m,
            Call {
                instruction,
                ..call
            },
        )
    };
    let expected = [
        (2, Some("log")),
        (5, Some("access")),
        (7, Some("helper")),
        (9, Some("conf")),
        (11, None),
        (13, None),
        (15, None),
        (17, Some("self")),
        (3, None),
        (0, None),
        (64, None),
    ];
    for (instruction, name) in expected {
        assert_eq!(of(&m, instruction).as_deref(), name, "{instruction}");
    }
    // Stripped: what is no constant has no name.
    m.put(call.prototype + prototype::VARIABLES as u64, &[0; 8]);
    m.put(call.prototype + prototype::UPVALUE_NAMES as u64, &[0; 8]);
    assert_eq!(of(&m, 5).as_deref(), Some("access"));
    assert_eq!((of(&m, 7), of(&m, 9)), (None, None));
    // Another function lies there now.
    m.half(call.prototype + prototype::FIRST_LINE as u64, 9);
    assert_eq!(of(&m, 5), None);
}

#[test]
fn the_call_is_the_instruction_before_the_one_that_goes_on() {
    let at = 0x7000_0000_0000;
    let first = at + prototype::BYTES as u64;
    assert_eq!(instruction(at, first + 4 * 6), 5);
    for pc in [0, first, first + 4, first + 7, u64::MAX] {
        assert_eq!(instruction(at, pc), 0, "{pc:x}");
    }
}

#[test]
fn only_builds_whose_instructions_are_known_are_read() {
    let mut m = Synthetic::default();
    let global = m.vm();
    use super::super::state::has_known_bytecode;
    assert!(has_known_bytecode(&m, global));
    for at in [360, 364] {
        m.half(global + at, 20 << 8 | 0x61);
    }
    assert!(!has_known_bytecode(&m, global));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 40),
        code in prop::collection::vec(any::<[u8; 4]>(), 60),
        instruction in 0_u32..70,
    ) {
        let mut m = Synthetic::default();
        let call = caller(&mut m, &code);
        m.put(call.prototype + prototype::VARIABLES as u64 - 16, &bytes[..24]);
        m.put(call.prototype + layout::prototype::CONSTANTS as u64, &bytes[24..32]);
        m.reads.set(0);
        let _ = name(&m, Call { instruction, ..call });
        prop_assert!(m.reads.get() < 12);
        let _ = local(&bytes, instruction, bytes[0]);
    }
}

#[test]
fn copies_are_followed_only_so_far() {
    let copied = |copies: u8| {
        let mut code = vec![[bytecode::GGET, 20, 0, 0]];
        code.extend((0..copies).map(|n| [bytecode::MOV, 21 + n, 20 + n, 0]));
        code.push([bytecode::CALL, 20 + copies, 1, 1]);
        let mut m = Synthetic::default();
        let call = Call {
            instruction: code.len() as u32,
            ..caller(&mut m, &code)
        };
        name(&m, call)
    };
    assert_eq!(copied(8).as_deref(), Some("log"));
    assert_eq!(copied(9), None);
}
