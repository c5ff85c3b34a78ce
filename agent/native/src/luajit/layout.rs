//! Where things are in LuaJIT's memory. In: nothing. Out: offsets and tags, in one place. Never: an
//! offset that was seen to differ between builds (those are found by structure, see `state` and
//! `trace`).
//!
//! From the public headers of LuaJIT 2.1 with 64-bit references (GC64) and of OpenResty's fork:
//! lj_obj.h, lj_jit.h, lj_frame.h; C frames from vm_x64.dasc and vm_arm64.dasc. The same in the
//! forks of 2021-05, 2023-01, 2023-11 and 2024-03 and in LuaJIT's own tree of 2026-08.

/// `lua_State`.
pub mod state {
    /// Bytes that are read of one.
    pub const BYTES: usize = 112;
    /// `glref`: the `global_State`.
    pub const GLOBAL: usize = 16;
    /// `base` of the function that ran when it was last stored.
    pub const BASE: usize = 32;
    /// `stack`: its first slot.
    pub const STACK: usize = 56;
    /// `env`: the table of globals.
    pub const ENV: usize = 72;
    /// `cframe`: the innermost C frame, with flags in its lowest two bits.
    pub const CFRAME: usize = 80;
    /// `stacksize`, in slots.
    pub const STACK_SLOTS: usize = 88;
    /// `exdata`, OpenResty's fork: the request that ngx_lua runs a coroutine for.
    pub const EXDATA: usize = 96;
    /// `exdata2`, OpenResty's fork: a coroutine's context in ngx_lua.
    pub const EXDATA2: usize = 104;
    /// The main thread lies this many bytes before its `global_State`, at least and at most: both
    /// begin the same allocation (`GG_State`), and what follows `exdata2` differs.
    pub const BEFORE_GLOBAL: std::ops::RangeInclusive<u64> = 96..=176;
}

/// `ngx_http_lua_co_ctx_t` and its twin of the stream module: what ngx_lua knows of a coroutine.
pub mod co_context {
    /// Its `lua_State`.
    pub const STATE: u64 = 8;
    /// The context of the coroutine that resumed it.
    pub const PARENT: u64 = 16;
    /// Both, side by side.
    pub const BYTES: usize = (PARENT + 8 - STATE) as usize;
}

/// What every collectable object begins with: `nextgc`, `marked`, `gct`.
pub mod object {
    /// `gct`: its type.
    pub const TYPE: usize = 9;
    /// `~LJ_TSTR`.
    pub const STRING: u8 = 4;
    /// `~LJ_TTHREAD`.
    pub const THREAD: u8 = 6;
    /// `~LJ_TPROTO`.
    pub const PROTO: u8 = 7;
    /// `~LJ_TFUNC`.
    pub const FUNCTION: u8 = 8;
    /// `~LJ_TTRACE`.
    pub const TRACE: u8 = 9;
    /// `~LJ_TTAB`.
    pub const TABLE: u8 = 11;
}

/// Tags in the upper 17 bits of a slot; the rest is an address.
pub mod slot {
    /// Bits of an address.
    pub const ADDRESS_BITS: u32 = 47;
    /// A string.
    pub const STRING: u64 = 0x1_fffb;
    /// A function.
    pub const FUNCTION: u64 = 0x1_fff7;
    /// A table.
    pub const TABLE: u64 = 0x1_fff4;
}

/// `GCfunc`.
pub mod function {
    /// Bytes that are read of one.
    pub const BYTES: usize = 40;
    /// `ffid`: 0 for Lua, 1 for C, more for a builtin.
    pub const KIND: usize = 10;
    /// `pc`: the first instruction, right behind the `GCproto`.
    pub const PC: usize = 32;
}

/// `GCproto`.
pub mod prototype {
    /// Bytes before its instructions.
    pub const BYTES: usize = 104;
    /// Bytes that tell one from another and say where it was defined.
    pub const HEAD_BYTES: usize = 80;
    /// `sizebc`: instructions.
    pub const INSTRUCTIONS: usize = 12;
    /// `k`: constants; objects lie before it, the last one first.
    pub const CONSTANTS: usize = 32;
    /// `sizept`: bytes with everything that belongs to it.
    pub const SIZE: usize = 56;
    /// `sizeuv`: upvalues, a byte.
    pub const UPVALUES: usize = 60;
    /// `uvinfo`: their names.
    pub const UPVALUE_NAMES: usize = 88;
    /// `varinfo`: names of local variables.
    pub const VARIABLES: usize = 96;
    /// `chunkname`.
    pub const CHUNK: usize = 64;
    /// `firstline`.
    pub const FIRST_LINE: usize = 72;
    /// `numline`.
    pub const LINES: usize = 76;
}

/// Instructions of LuaJIT 2.1 (lj_bc.h): `OP A C B`, a byte each, or `OP A` and D of 16 bits. Their
/// numbers are those of a build only when its [`bytecode::FUNCC`] has the same.
pub mod bytecode {
    /// Copies slot D.
    pub const MOV: u8 = 18;
    /// Clears slots A to D.
    pub const KNIL: u8 = 44;
    /// Loads upvalue D.
    pub const UGET: u8 = 45;
    /// Loads the global with the name D.
    pub const GGET: u8 = 54;
    /// Loads the field with the name C.
    pub const TGETS: u8 = 57;
    /// Calls slot A with several results of another call.
    pub const CALLM: u8 = 65;
    /// Calls slot A.
    pub const CALL: u8 = 66;
    /// Calls an iterator, three slots below A.
    pub const ITERC: u8 = 69;
    /// The same when it was `next`.
    pub const ITERN: u8 = 70;
    /// Head of a C function; its wrapped twin has the next number.
    pub const FUNCC: u8 = 95;

    /// Whether it writes slot A and no other: comparisons that copy, operators, constants, loads.
    #[must_use]
    pub fn writes_a(op: u8) -> bool {
        matches!(op, 12 | 13 | 18..=43 | 45 | 51..=54 | 56..=59)
    }

    /// Whether it may write slot A and those above it: calls, loops, returns, `KNIL`, `TSETM`.
    #[must_use]
    pub fn writes_from_a_on(op: u8) -> bool {
        matches!(op, 44 | 63 | 65..=73 | 77..=84)
    }
}

/// `GCstr`.
pub mod string {
    /// `len` of builds since 2021 and of those before; the text ends with a 0, which tells.
    pub const LENGTH: [usize; 2] = [20, 16];
    /// The text.
    pub const TEXT: u64 = 24;
}

/// `GCtab` and its `Node`s.
pub mod table {
    /// Bytes that are read of one.
    pub const BYTES: usize = 56;
    /// `node`: the hash part.
    pub const NODES: usize = 40;
    /// `hmask`: its size less one.
    pub const MASK: usize = 52;
    /// Bytes of a node: value, key, next.
    pub const NODE_BYTES: usize = 24;
}

/// `GCtrace`.
pub mod trace {
    /// Bytes that are read of one.
    pub const BYTES: usize = 112;
    /// `nsnap`: snapshots.
    pub const SNAPSHOTS: usize = 10;
    /// `ir`, biased so that constants are found by their reference.
    pub const IR: usize = 32;
    /// `nsnapmap`: words of the snapshots' map.
    pub const MAP_WORDS: usize = 44;
    /// `snap`.
    pub const SNAPSHOT: usize = 48;
    /// `snapmap`.
    pub const MAP: usize = 56;
    /// `startpt`: the prototype that it begins in.
    pub const START_PROTO: usize = 64;
    /// `szmcode`.
    pub const CODE_BYTES: usize = 84;
    /// `mcode`.
    pub const CODE: usize = 88;
    /// `traceno`.
    pub const NUMBER: usize = 104;
}

/// `SnapShot` and `SnapEntry`.
pub mod snapshot {
    /// Bytes of a snapshot.
    pub const BYTES: usize = 12;
    /// `mapofs`: its first word in the map.
    pub const MAP_AT: usize = 0;
    /// `mcofs`: where its code begins.
    pub const CODE_AT: usize = 6;
    /// `nent`: its entries; behind them the map has the program counter and the base.
    pub const ENTRIES: usize = 10;
}

/// `global_State`.
pub mod global {
    /// Where `bc_cfunc_int` is looked for: two instructions `BC_FUNCC` (or its wrapped
    /// twin), `cur_L` and `jit_base` behind.
    pub const SEARCH_FROM: u64 = 0x100;
    /// Bytes that are looked through.
    pub const SEARCH_BYTES: usize = 0x180;
    /// Operand A of both instructions (`LUA_MINSTACK`), above the opcode `BC_FUNCC`.
    pub const C_FUNCTION_A: u32 = 20;
    /// Where `J.trace` is looked for, from the `global_State` on.
    pub const TRACES_FROM: u64 = 0x100;
    /// Bytes that are looked through.
    pub const TRACES_BYTES: usize = 0x1800;
}

/// How the interpreter's C frame lies on the machine stack, and its registers.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// DWARF number of the register with `BASE`.
    pub base: usize,
    /// DWARF number of the register with the program counter.
    pub pc: usize,
    /// Ways that unwind tables may state the frame: register and offset of the CFA.
    pub cfa: &'static [(u16, i64)],
    /// Registers that the tables must say are saved there: number and offset from the CFA.
    pub table: &'static [(u16, i64)],
    /// Bytes of the frame.
    pub size: u64,
    /// The frame's `lua_State`.
    pub state: u64,
    /// Number of results, a signed 32-bit number; negative for a frame without a function.
    pub results: u64,
    /// The C frame before it that has the same `lua_State`.
    pub previous: u64,
    /// The return address.
    pub return_address: u64,
    /// Saved registers by DWARF number.
    pub saved: &'static [(u16, u64)],
    /// Registers that a trace saves besides, from the frame's start.
    pub saved_by_trace: &'static [(u16, i64)],
}

/// x86-64, System V.
pub const X86_64: Machine = Machine {
    base: 1,
    pc: 3,
    cfa: &[(7, 80), (7, 96)],
    table: &[(6, -16), (3, -24), (15, -32), (14, -40)],
    size: 80,
    state: 16,
    results: 8,
    previous: 32,
    return_address: 72,
    saved: &[(6, 64), (3, 56), (15, 48), (14, 40)],
    saved_by_trace: &[(12, 0), (13, -8)],
};

/// aarch64.
pub const AARCH64: Machine = Machine {
    base: 19,
    pc: 21,
    cfa: &[(29, 16), (31, 208)],
    table: &[(30, -8), (29, -16), (19, -24), (20, -32)],
    size: 208,
    state: 16,
    results: 40,
    previous: 0,
    return_address: 200,
    saved: &[
        (29, 192),
        (19, 184),
        (20, 176),
        (21, 168),
        (22, 160),
        (23, 152),
        (24, 144),
        (25, 136),
        (26, 128),
        (27, 120),
        (28, 112),
    ],
    saved_by_trace: &[],
};

/// The one that runs here.
pub const HERE: Machine = if cfg!(target_arch = "aarch64") {
    AARCH64
} else {
    X86_64
};

/// Smallest function that may be the interpreter, in bytes.
pub const INTERPRETER_BYTES_MIN: u64 = 8000;
