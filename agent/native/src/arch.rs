//! What differs between processors. In: sampled registers in the kernel's order. Out: registers
//! in DWARF's order. Never: an address interpreted.

/// DWARF registers that are kept; the program counter is apart.
pub const REGISTERS: usize = 32;

/// A thread's registers in DWARF numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regs {
    /// Program counter.
    pub ip: u64,
    /// General registers by DWARF number.
    pub r: [u64; REGISTERS],
}

impl Regs {
    /// The stack pointer.
    #[must_use]
    pub fn sp(&self) -> u64 {
        self.r[SP as usize]
    }

    /// The frame pointer, where the code keeps one.
    #[must_use]
    pub fn fp(&self) -> u64 {
        self.r[FP as usize]
    }
}

#[cfg(target_arch = "x86_64")]
mod numbers {
    /// AX..SS and R8..R15 without the data segment registers
    /// (arch/x86/include/uapi/asm/perf_regs.h).
    pub const SAMPLED: u64 = 0xff_0fff;
    /// DWARF number of the stack pointer (System V ABI, figure 3.36).
    pub const SP: u16 = 7;
    /// DWARF number of the frame pointer.
    pub const FP: u16 = 6;
    /// DWARF number of the return address column.
    pub const RA: u16 = 16;
    /// Where each sampled register goes, in the order that the kernel writes them; 255 is dropped
    /// and 254 is the program counter.
    pub const ORDER: [u8; 20] = [
        0, 3, 2, 1, 4, 5, 6, 7, 254, 255, 255, 255, 8, 9, 10, 11, 12, 13, 14, 15,
    ];
    /// Registers that a callee keeps for its caller.
    pub const KEPT: [u16; 6] = [3, 6, 12, 13, 14, 15];
}

#[cfg(target_arch = "aarch64")]
mod numbers {
    /// X0..X30, SP, PC (arch/arm64/include/uapi/asm/perf_regs.h).
    pub const SAMPLED: u64 = (1 << 33) - 1;
    /// DWARF number of the stack pointer (AADWARF64).
    pub const SP: u16 = 31;
    /// DWARF number of the frame pointer.
    pub const FP: u16 = 29;
    /// DWARF number of the link register, which is the return address column.
    pub const RA: u16 = 30;
    /// Where each sampled register goes; 254 is the program counter.
    pub const ORDER: [u8; 33] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31, 254,
    ];
    /// Registers that a callee keeps for its caller, and the link register.
    pub const KEPT: [u16; 12] = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30];
}

pub use numbers::{FP, KEPT, ORDER, RA, SAMPLED, SP};

/// How many registers a sample carries.
pub const SAMPLED_COUNT: usize = ORDER.len();

/// Registers of a sample, from the words that the kernel wrote.
#[must_use]
pub fn regs_from_words(words: &[u64; SAMPLED_COUNT]) -> Regs {
    let mut regs = Regs {
        ip: 0,
        r: [0; REGISTERS],
    };
    for (&word, &to) in words.iter().zip(&ORDER) {
        match to {
            254 => regs.ip = word,
            255 => {}
            to => regs.r[usize::from(to)] = word,
        }
    }
    regs
}
