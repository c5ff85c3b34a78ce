//! What a script prints: its stacks into the recorder, the rest kept as text.
//!
//! In: bytes as they come, and when. Out: rows of the recorder, with the names that this host can give: Lua functions by
//! their sources, functions by addresses; the rest as it was printed. Never: a stack that is counted and kept as text too;
//! a source's text; a run-time address in a frame.

use crate::engine::SharedRecorder;
use crate::engine::task::lock;
use crate::stapxx::{BYTES_MAX, LuaNames};
use model::format::script_stacks::{Hears, StackSplitter, frame_of};
use model::profile::{Frame, FrameId, Series, SeriesId};
use model::script::{Printed, PrintedReader};
use native::AddressNames;

/// Bytes of lines with new frames, after which frames are `[pruned]`.
const FRAME_BYTES_MAX: usize = 32 << 20;

/// See the module.
pub(super) struct ScriptOutput {
    /// None where the script prints no stacks: its lines may look like some.
    splitter: Option<StackSplitter>,
    sink: Sink,
    taken_bytes: u64,
}

struct Sink {
    recorder: SharedRecorder,
    series: Series,
    id: Option<SeriesId>,
    /// How much of the measure a count is.
    scale: u64,
    /// One of the processes, in whose root Lua's sources are read.
    reader: Option<u32>,
    lua: LuaNames,
    /// Of the process that stacks are of, or of one that has everything where all of them have it: of others nobody can
    /// say whose address it is.
    names: Option<(u32, AddressNames)>,
    printed: PrintedReader,
    at_ms: u64,
    /// Frames that were met, and the bytes of the lines that they were met in first.
    met: (u32, usize),
    ids: Vec<FrameId>,
}

impl ScriptOutput {
    /// For a script that prints stacks or not, of these processes. Where they are one, `series` names it. Blocks for some
    /// milliseconds.
    pub(super) fn new(
        recorder: SharedRecorder,
        series: Series,
        scale: u64,
        prints_stacks: bool,
        pids: &[u32],
        now_ns: u64,
    ) -> Self {
        let known = pids.first().filter(|_| prints_stacks && are_forks(pids));
        let names = known.map(|pid| {
            let mut names = AddressNames::new(false);
            // It may be gone when its stacks are printed.
            names.learn(*pid, now_ns);
            (*pid, names)
        });
        Self {
            splitter: prints_stacks.then(StackSplitter::default),
            sink: Sink {
                recorder,
                series,
                id: None,
                scale,
                reader: pids.first().copied(),
                lua: LuaNames::default(),
                names,
                printed: PrintedReader::default(),
                at_ms: 0,
                met: (0, 0),
                ids: Vec::new(),
            },
            taken_bytes: 0,
        }
    }

    /// The next bytes, so many milliseconds after the start.
    pub(super) fn feed(&mut self, bytes: &[u8], at_ms: u64) {
        self.sink.at_ms = at_ms;
        self.taken_bytes = self.taken_bytes.saturating_add(bytes.len() as u64);
        match &mut self.splitter {
            Some(splitter) => splitter.feed(bytes, &mut self.sink),
            None => self.sink.text(bytes),
        }
    }

    /// Another reader goes on: a line or a stack that the first one has begun has no end.
    pub(super) fn next_reader(&mut self) {
        if let Some(splitter) = &mut self.splitter {
            splitter.end(&mut self.sink);
            *splitter = StackSplitter::default();
        }
    }

    /// Bytes so far.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The end: what was no stack, and how many bytes of it were beyond the bound.
    pub(super) fn end(&mut self, at_ms: u64) -> (Vec<Printed>, u64) {
        self.sink.at_ms = at_ms;
        if let Some(mut splitter) = self.splitter.take() {
            splitter.end(&mut self.sink);
        }
        std::mem::take(&mut self.sink.printed).end(at_ms)
    }
}

impl Sink {
    fn frame(&mut self, line: &[u8], is_leaf: bool) -> FrameId {
        let text = String::from_utf8_lossy(line);
        let reader = self.reader;
        let read = &mut |path: &str| native::read_in_root_of(reader?, path, BYTES_MAX as u64);
        let renamed = self.lua.rename(&text, read);
        let known = frame_of(renamed.as_deref().map_or(line, str::as_bytes));
        let mut recorder = lock(&self.recorder);
        if let (Some(address), Some((pid, names))) = (known.address, &mut self.names) {
            // All but the leaf's are return addresses.
            let address = address.wrapping_sub(u64::from(!is_leaf));
            let mut ids = Vec::new();
            names.fold(&mut recorder, *pid, &[], &[address], false, 1, &mut ids);
            if let [id] = ids[..] {
                return id;
            }
        }
        recorder.frame(&known.frame)
    }
}

impl Hears for Sink {
    fn text(&mut self, bytes: &[u8]) {
        self.printed.feed(bytes, self.at_ms);
    }

    fn stack(&mut self, leaf_first: &[&[u8]], count: u64) {
        self.ids.clear();
        for (depth, line) in leaf_first.iter().enumerate().rev() {
            if self.met.1 > FRAME_BYTES_MAX {
                let id = lock(&self.recorder).frame(&Frame::marker("[pruned]"));
                self.ids.push(id);
                break;
            }
            let id = self.frame(line, depth == 0);
            if id.0 >= self.met.0 {
                self.met = (id.0 + 1, self.met.1 + line.len());
            }
            self.ids.push(id);
        }
        let mut recorder = lock(&self.recorder);
        if self.ids.is_empty() {
            let unknown = frame_of(b"0x0").frame;
            self.ids.push(recorder.frame(&unknown));
        }
        let id = *self.id.get_or_insert_with(|| recorder.series(&self.series));
        let second = u32::try_from(self.at_ms / 1_000).unwrap_or(u32::MAX);
        let value = count.saturating_mul(self.scale);
        recorder.add_stack(id, second, &self.ids, &[value, 0, 0]);
    }
}

/// Whether code lies at the same addresses in all of them: a gateway's workers are forks of its master. Programs that were
/// started have stacks that begin elsewhere, each of them (proc(5), `startcode` and `startstack`).
fn are_forks(pids: &[u32]) -> bool {
    let layout = |pid: &u32| -> Option<(u64, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Fields 26 and 28; the third is the first behind the name.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ').skip(23);
        let code = fields.next()?.parse().ok()?;
        Some((code, fields.nth(1)?.parse().ok()?))
    };
    let mut layouts = pids.iter().map(layout);
    match (pids, layouts.next()) {
        ([_], _) => true,
        // Who may not see them is told 0 and 1.
        (_, Some(Some(first))) => first.1 > 1 && layouts.all(|other| other == Some(first)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::format::folded;
    use model::profile::{IdMap, Keep, Measure, Process, Profile, Recorder, RecorderLimits};
    use std::sync::{Arc, Mutex};

    fn run(text: &str, prints_stacks: bool, pids: &[u32]) -> (String, String) {
        let measures = vec![Measure::new("time", "ns")];
        let recorder = Recorder::new("h", measures.clone(), RecorderLimits::default());
        let recorder = Arc::new(Mutex::new(recorder));
        let process = Process {
            pid: pids.first().copied().unwrap_or(0),
            ..Process::default()
        };
        let series = Series {
            host: "h".into(),
            process,
            ..Series::default()
        };
        let shared = Arc::clone(&recorder);
        let mut output = ScriptOutput::new(shared, series, 1_000, prints_stacks, pids, 1);
        output.feed(text.as_bytes(), 2_500);
        let (pieces, dropped) = output.end(3_000);
        assert_eq!(dropped, 0);
        let (mut profile, mut ids) = (Profile::new("script", measures), IdMap::default());
        let mut recorder = recorder.lock().unwrap();
        loop {
            let segment = recorder.take(usize::MAX);
            if segment.is_empty() {
                break;
            }
            assert!(segment.cells.iter().all(|(_, second, _)| *second == 2));
            let absorbed = profile.absorb(&mut ids, "h", &segment, Keep::Totals);
            absorbed.unwrap();
        }
        let stacks = profile.select(|_| true);
        let folded = folded::write(&profile.tree, &profile.frames, &stacks, 0);
        (folded, pieces.into_iter().map(|p| p.text).collect())
    }

    #[test]
    fn stacks_are_recorded_in_their_unit_and_the_rest_is_kept() {
        let text = "begun\n 0x2 : leaf+0x1/0x2 [/bin/a]\n 0x1 : main+0x1/0x2 [/bin/a]\n\t7\n\
            \x20 0x1 : main+0x1/0x2 [/bin/a]\n\t1\n\n\t2\nended\n";
        let (folded, printed) = run(text, true, &[]);
        assert_eq!(folded, "[unknown] 2000\nmain 1000\nmain;leaf 7000\n");
        assert_eq!(printed, "begun\nended\n");
        // Of a script without a word of stacks all is text.
        let (folded, printed) = run(text, false, &[]);
        assert_eq!((folded.as_str(), printed.as_str()), ("", text));
    }

    #[test]
    fn lua_functions_have_the_names_of_their_sources() {
        let stage = tempfile::tempdir().unwrap();
        let source = stage.path().join("x.lua");
        std::fs::write(&source, "local M = {}\nfunction M.connect(self)\nend\n").unwrap();
        let text = format!("C:lj_str_new\n@{}:2\n@/gone.lua:3\n\t1\n", source.display());
        let (folded, printed) = run(&text, true, &[std::process::id()]);
        let whole = "/gone.lua:3_[l];x.lua:M.connect_[l];lj_str_new 1000\n";
        assert!(
            folded == whole || folded.contains("x.lua:M.connect"),
            "{folded}"
        );
        assert_eq!(printed, "");
    }

    #[test]
    fn bare_addresses_of_one_process_are_named_and_of_several_are_not() {
        let here = run as *const () as usize;
        let text = format!("0x{here:x} 0x{:x} \t4\n", here + 1);
        let (folded, _) = run(&text, true, &[std::process::id()]);
        assert!(
            folded.contains("script_stacks") && folded.ends_with(" 4000\n"),
            "{folded}"
        );
        assert!(!folded.contains("[unknown]"), "{folded}");
        let (folded, _) = run(&text, true, &[std::process::id(), 1]);
        assert_eq!(folded, "[unknown];[unknown] 4000\n");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process that forks")]
    fn forks_have_their_code_where_their_parent_has_it() {
        use std::io::{BufRead as _, BufReader};
        use std::process::{Command, Stdio};
        // Both end with the pipe.
        let mut parent = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0; (read x <&3) & echo $!; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let said = parent.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        let fork: u32 = line.trim().parse().unwrap();
        let own = std::process::id();
        assert!(are_forks(&[parent.id(), fork]));
        assert!(!are_forks(&[parent.id(), own]) && !are_forks(&[own, fork]));
        assert!(are_forks(&[own]) && !are_forks(&[]));
        drop(parent.stdin.take());
        parent.wait().unwrap();
        assert!(!are_forks(&[parent.id(), own]));
    }

    #[test]
    fn frames_without_end_are_pruned_and_counted() {
        let line = |n: usize| format!("@/{n}{}:1\n\t1\n", "x".repeat(4_000));
        let mut text = String::new();
        (0..10_000).for_each(|n| text.push_str(&line(n)));
        let (folded, printed) = run(&text, true, &[]);
        assert!(folded.contains("[pruned] "), "{}", folded.len());
        assert!(printed.is_empty());
        let sum: u64 = folded
            .lines()
            .filter_map(|l| l.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum();
        assert_eq!(sum, 10_000 * 1_000);
    }
}
