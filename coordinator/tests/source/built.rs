//! Programs of gcc's with inlined functions over two files, and what binutils know of them. In: flags. Out: addresses,
//! functions, lines; text as SystemTap prints it. Never: a number that was written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const HOT_H: &str = "\
static inline __attribute__((always_inline)) unsigned long mix(unsigned long x)
{
    x ^= x >> 7;
    return x * 0x9e3779b97f4a7c15ul;
}
";
const WORK_C: &str = "\
#include \"hot.h\"

static inline __attribute__((always_inline)) unsigned long turn(unsigned long x)
{
    unsigned long y = mix(x);
    return y ^ mix(y + 1);
}

static __attribute__((noipa)) unsigned long step(unsigned long x)
{
    return turn(x) + 1;
}

__attribute__((noipa)) unsigned long work(unsigned long n)
{
    unsigned long x = n;
    for (unsigned long i = 0; i < n; i++)
        x = turn(x) + step(x);
    return x;
}
";
const MAIN_C: &str = "\
#include <stdio.h>
#include <stdlib.h>
unsigned long work(unsigned long n);

static __attribute__((noipa)) unsigned long step(unsigned long x)
{
    return work(x) * 3;
}

int main(int argc, char **argv)
{
    unsigned long sum = 0;
    for (long i = argc > 1 ? atol(argv[1]) : 1; i > 0; i--)
        sum += step(100000);
    printf(\"%lu\\n\", sum);
    return 0;
}
";
/// Functions of the program: `step` is in both files.
const FUNCTIONS: [&str; 3] = ["work", "step", "main"];
/// Where a program that is position-independent is in a process.
pub const BASE: u64 = 0x5555_5555_4000;

/// Runs a tool, and gives what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program that was built for a test.
pub struct Built {
    folder: tempfile::TempDir,
    pub app: String,
}

impl Built {
    pub fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for (name, text) in [("hot.h", HOT_H), ("work.c", WORK_C), ("main.c", MAIN_C)] {
            std::fs::write(at(name), text).unwrap();
        }
        let (work, main, app) = (at("work.c"), at("main.c"), at("app"));
        let mut args = vec![
            "-O2",
            "-g",
            "-fno-omit-frame-pointer",
            "-o",
            &app,
            &work,
            &main,
        ];
        args.extend(flags);
        run("gcc", &args);
        Self { folder, app }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Name, address and size of each of its own functions.
    fn functions(&self) -> Vec<(String, u64, u64)> {
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let all = run("nm", &["-S", &self.app]);
        let words = all.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        words
            .filter(|w| w.len() == 4 && FUNCTIONS.contains(&w[3]))
            .map(|w| (w[3].to_owned(), hex(w[0]), hex(w[1])))
            .collect()
    }

    /// The addresses of all instructions in them, each with the function's name, begin and size.
    pub fn instructions(&self) -> Vec<(u64, String, u64, u64)> {
        let functions = self.functions();
        assert_eq!(functions.len(), 4, "{functions:?}");
        let text = run("objdump", &["-d", "--no-show-raw-insn", &self.app]);
        let addresses = text.lines().filter_map(|l| {
            let (address, _) = l.strip_prefix("  ")?.split_once(":\t")?;
            u64::from_str_radix(address.trim(), 16).ok()
        });
        let within = |at: u64| {
            let mut found = functions
                .iter()
                .filter(|(_, from, size)| (*from..from + size).contains(&at));
            found.next()
        };
        let all = addresses.filter_map(|at| {
            let (name, from, size) = within(at)?;
            Some((at, name.clone(), *from, *size))
        });
        all.collect()
    }
}

/// What addr2line says: for each address the functions with their lines, innermost first.
pub fn addr2line(app: &str, addresses: &BTreeSet<u64>) -> BTreeMap<u64, Vec<(String, String)>> {
    let words: Vec<String> = addresses.iter().map(|a| format!("{a:#x}")).collect();
    let mut args = vec!["-f", "-i", "-a", "-s", "-e", app];
    args.extend(words.iter().map(String::as_str));
    let text = run("addr2line", &args);
    let mut lines = text.lines();
    let mut all: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    let mut address = 0;
    while let Some(line) = lines.next() {
        if let Some(digits) = line.strip_prefix("0x") {
            address = u64::from_str_radix(digits, 16).unwrap();
            continue;
        }
        let place = lines.next().unwrap();
        let place = place.split(" (discriminator").next().unwrap();
        all.entry(address)
            .or_default()
            .push((line.to_owned(), place.to_owned()));
    }
    all
}

/// A place's frames as folded text has them, root first.
pub fn folded(frames: &[(String, String)]) -> String {
    let inlined = frames.len() - 1;
    let one = |(i, (function, place)): (usize, &(String, String))| {
        let mark = if i < inlined { "_[i]" } else { "" };
        if place.contains('?') || place.ends_with(":0") {
            format!("{function}{mark}")
        } else {
            format!("{function}({place}){mark}")
        }
    };
    let mut all: Vec<String> = frames.iter().enumerate().map(one).collect();
    all.reverse();
    all.join(";")
}

/// All instructions as SystemTap prints them of a process, once as the leaf and once as a caller; and the folded
/// stacks that are right.
pub fn everywhere(built: &Built, module: &str, base: u64) -> (String, BTreeMap<String, u64>) {
    let instructions = built.instructions();
    let mut addresses: BTreeSet<u64> = instructions.iter().map(|i| i.0).collect();
    addresses.extend(instructions.iter().map(|i| i.0 - 1));
    let known = addr2line(&built.app, &addresses);
    let (mut text, mut right) = (String::new(), BTreeMap::new());
    let mut stack = |lines: &str, frames: String| {
        text.push_str(&format!("{lines}\t1\n"));
        *right.entry(frames).or_default() += 1;
    };
    for (at, name, from, size) in &instructions {
        // SystemTap's size goes up to the next function.
        let size = (size + 15) & !15;
        let line = format!(
            " {:#x} : {name}+{:#x}/{size:#x} [{module}]\n",
            base + at,
            at - from
        );
        stack(&line, folded(&known[at]));
        if at > from {
            let frames = folded(&known[&(at - 1)]);
            let lines = format!(" 0xffffffff81000000 : do_idle+0x1/0x2 [kernel]\n x\n{line}{line}");
            let lines = lines.replace(" x\n", "");
            stack(
                &lines,
                format!("{frames};{};do_idle_[k]", folded(&known[at])),
            );
        }
    }
    (text, right)
}
