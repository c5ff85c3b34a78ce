//! A case: a script, what it samples, and how it is ended; and what came of it in a guest.
//!
//! In: the text of a case of `tests/lab/cases`. Out: the case as a value; a recording of its run. Never: a
//! run without an end: after [`RUN_DEADLINE`] it is killed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::guest::Guest;
use super::image::{self, GuestSetup};
use super::kit::Kit;
use super::module::Script;
use super::remote::RemoteChild;
use crate::workload::{Build, Workload};

/// The longest case is over long before. A guest of a machine that has other things to do is twenty times slower than
/// its emulation is already: these are for what hangs, not for what is slow.
pub const RUN_DEADLINE: Duration = Duration::from_mins(4);
const READY: Duration = Duration::from_mins(3);
/// What wrk is asked for: longer than a case, bounded all the same.
const LOAD_S: u32 = 60;
const LUA_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_lua_module.so";
/// What stands in a script for the path of `stacks`.
const PROGRAM: &str = "PROGRAM";
/// Where a guest has its modules.
const MODULES: &str = "/mnt/modules";

/// See the module.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its file's name.
    pub name: String,
    /// The module's name, its script and options; what is unwound is decided by the target.
    pub script: Script,
    /// More arguments of staprun.
    pub staprun: Vec<String>,
    /// Values of the module's own parameters, `NAME=VALUE`.
    pub parameters: Vec<String>,
    /// What is sampled.
    pub target: Target,
    /// How it ends.
    pub end: End,
    /// What the module says as soon as it runs.
    ready: Option<String>,
    unwinds: bool,
}

/// What a case samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `split SECONDS DEPTH`: the workload, 70 to 30.
    Split(u32, u32),
    /// `stacks SECONDS DEPTH`: another of 8^DEPTH stacks each time.
    Stacks(u32, u32),
    /// `idle SECONDS`: a program that sleeps.
    Idle(u32),
    /// `gateway`: a worker of nginx under load.
    Gateway,
}

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `itself`: by the script.
    Itself,
    /// `SIGNAL SECONDS`: a signal to staprun (which is stapio by then) so long after its module said that it runs.
    Signal(Signal, u32),
}

/// What a case came to, as files of a recording have it.
#[derive(Debug)]
pub struct Recording {
    /// What staprun wrote on stdout.
    pub stdout: Vec<u8>,
    /// What it wrote on stderr.
    pub stderr: Vec<u8>,
    /// Exit code or signal.
    pub status: ExitStatus,
    /// From its start to its end.
    pub wall: Duration,
    /// From the signal to its end.
    pub stopping: Option<Duration>,
    /// What was run.
    pub command: String,
    /// SystemTap's processes before the signal, as `ps` shows them.
    pub processes: Option<String>,
    /// `/proc/PID/maps` of the target, for naming addresses later.
    pub maps: Vec<u8>,
    /// Modules that are loaded afterwards, `NAME(used=N)`.
    pub left: Vec<String>,
}

/// A case that runs: the guest is free for other things meanwhile.
#[derive(Debug)]
pub struct Running {
    /// staprun, which becomes stapio.
    pub reader: RemoteChild,
    /// The target's process id.
    pub target: i32,
    maps: Vec<u8>,
    command: String,
    began: Instant,
    end: End,
    /// The target, its load.
    others: Vec<RemoteChild>,
}

impl Case {
    /// Where the cases of the project are, and their scripts.
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("lab")
    }

    /// The project's case of this name.
    pub fn named(name: &str) -> Result<Self> {
        let cases = Self::folder().join("cases");
        let text = fs::read_to_string(cases.join(name)).with_context(|| {
            let there = fs::read_dir(&cases).into_iter().flatten().flatten();
            let mut names: Vec<_> = there.map(|entry| entry.file_name()).collect();
            names.sort();
            format!("there is no case {name:?}; there are {names:?}")
        })?;
        Self::read(name, &text, |script| {
            let path = Self::folder().join("scripts").join(script);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        })
        .with_context(|| format!("case {name}"))
    }

    fn read(name: &str, text: &str, script: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let (mut module, mut target, mut end, mut ready) = (None, None, None, None);
        let (mut source, mut unwinds) = (None, false);
        let (mut options, mut staprun) = (Vec::new(), Vec::new());
        let mut parameters = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                [] => {}
                ["script", file] => source = Some(script(file)?),
                ["module", name] => module = Some(name.to_owned()),
                ["ready", word] => ready = Some(word.to_owned()),
                ["option", option] => options.push(option.to_owned()),
                ["staprun", ref more @ ..] => staprun.extend(more.iter().map(|w| (*w).to_owned())),
                ["parameter", value] => parameters.push(value.to_owned()),
                ["unwind"] => unwinds = true,
                ["target", ref words @ ..] => target = Some(Target::read(words)?),
                ["end", ref words @ ..] => end = Some(End::read(words)?),
                _ => bail!("{line:?} says nothing that a case can say"),
            }
        }
        Ok(Self {
            name: name.to_owned(),
            script: Script {
                name: module.context("it names no module")?,
                text: source.context("it names no script")?,
                options,
                unwound: Vec::new(),
            },
            staprun,
            parameters,
            target: target.context("it names no target")?,
            end: end.context("it does not say how it ends")?,
            ready,
            unwinds,
        })
    }

    /// What a guest must hold for it.
    pub fn prepare(&self, setup: GuestSetup) -> Result<GuestSetup> {
        Ok(match self.target {
            Target::Split(..) => setup.program(split()?),
            Target::Stacks(..) => setup.program(stacks()?),
            Target::Idle(_) => setup,
            Target::Gateway => setup.gateway(),
        })
    }

    /// Its module.
    pub fn compile(&self, kit: &Kit) -> Result<PathBuf> {
        let mut script = self.script.clone();
        if self.unwinds {
            script = match self.target {
                // An idle target is never seen: the same module as for one that works.
                Target::Split(..) => script.unwinding(&split()?)?,
                Target::Idle(_) if !script.text.contains(PROGRAM) => script.unwinding(&split()?)?,
                Target::Idle(_) | Target::Stacks(..) => {
                    let program = stacks()?;
                    script.text = script.text.replace(PROGRAM, &program.to_string_lossy());
                    script.unwinding(&program)?
                }
                // Of nginx's own libraries no work is asked here: what the Lua module loads is enough.
                Target::Gateway => {
                    script.unwound.push("/usr/sbin/nginx".into());
                    script.unwound.push(image::lua_json().canonicalize()?);
                    script.unwinding(Path::new(LUA_MODULE))?
                }
            };
        }
        script.compile(kit)
    }

    /// Starts the target and the module.
    pub fn start(&self, guest: &Guest, kit: &Kit) -> Result<Running> {
        let module = format!("{MODULES}/{}.ko", self.script.name);
        guest.put_file(&self.compile(kit)?, &module)?;
        let (target, others) = self.target.start(guest)?;
        let pid = target.to_string();
        let mut arguments = vec!["/usr/bin/staprun"];
        arguments.extend(self.staprun.iter().map(String::as_str));
        arguments.extend(["-x", &pid, &module]);
        arguments.extend(self.parameters.iter().map(String::as_str));
        let maps = guest.get(&format!("/proc/{pid}/maps"))?;
        let began = Instant::now();
        let reader = guest.start(&arguments)?;
        // A signal that comes before the module runs ends staprun with code 1 and without a word, and leaves
        // the module loaded.
        if let Some(word) = &self.ready
            && let Err(error) = reader.wait_for_line(word, READY)
        {
            ensure!(
                reader.ended().is_some(),
                "{error}\n{}",
                guest.reader_state()
            );
        }
        Ok(Running {
            began,
            reader,
            target,
            maps,
            command: arguments.join(" "),
            end: self.end,
            others,
        })
    }

    /// Runs it to its end. What it leaves loaded stays loaded; its target is gone.
    pub fn run(&self, guest: &Guest, kit: &Kit) -> Result<Recording> {
        self.start(guest, kit)?.finish(guest)
    }
}

impl Target {
    fn read(words: &[&str]) -> Result<Self> {
        Ok(match *words {
            ["split", seconds, depth] => Self::Split(seconds.parse()?, depth.parse()?),
            ["stacks", seconds, depth] => Self::Stacks(seconds.parse()?, depth.parse()?),
            ["idle", seconds] => Self::Idle(seconds.parse()?),
            ["gateway"] => Self::Gateway,
            _ => bail!("no target: {words:?}"),
        })
    }

    fn start(&self, guest: &Guest) -> Result<(i32, Vec<RemoteChild>)> {
        match self {
            Self::Split(seconds, depth) => start_program(guest, &split()?, *seconds, *depth),
            Self::Stacks(seconds, depth) => start_program(guest, &stacks()?, *seconds, *depth),
            Self::Idle(seconds) => {
                let child = guest.start(&["/bin/sleep", &seconds.to_string()])?;
                let pid = child.pid()?;
                // It works until it sleeps: loading itself takes time, too.
                let asleep = "until grep -q '^State:.S' \"/proc/$0/status\"; do sleep 0.1; done";
                guest.run(&["/bin/sh", "-c", asleep, &pid.to_string()], READY)?;
                Ok((pid, vec![child]))
            }
            Self::Gateway => {
                let (nginx, worker) = guest.start_gateway()?;
                Ok((
                    worker,
                    vec![nginx, guest.load_gateway("/backtrack", LOAD_S)?],
                ))
            }
        }
    }
}

impl End {
    fn read(words: &[&str]) -> Result<Self> {
        Ok(match *words {
            ["itself"] => Self::Itself,
            [signal, seconds] => Self::Signal(format!("SIG{signal}").parse()?, seconds.parse()?),
            _ => bail!("no end: {words:?}"),
        })
    }
}

impl Running {
    /// Ends it as the case says, and gives what came of it.
    pub fn finish(mut self, guest: &Guest) -> Result<Recording> {
        let (mut processes, mut signalled) = (None, None);
        if let End::Signal(signal, after_s) = self.end {
            std::thread::sleep(Duration::from_secs(after_s.into()));
            // What ended before its signal is recorded as it is.
            if self.reader.ended().is_none() {
                processes = Some(guest.sh("ps | grep '[s]tap' || true", READY)?);
                signalled = Some(Instant::now());
                self.reader.signal(signal)?;
            }
        }
        if let Err(error) = self.reader.wait(RUN_DEADLINE) {
            bail!("{error}\n{}", guest.reader_state());
        }
        let output = self.reader.finish(RUN_DEADLINE)?;
        let ended = Instant::now();
        drop(self.others);
        let loaded = guest.modules()?.into_iter();
        Ok(Recording {
            stdout: output.stdout,
            stderr: output.stderr,
            status: output.status,
            wall: ended.saturating_duration_since(self.began),
            stopping: signalled.map(|at| ended.saturating_duration_since(at)),
            command: match self.end {
                End::Itself => self.command,
                End::Signal(signal, after_s) => {
                    let name = signal.as_str().trim_start_matches("SIG");
                    format!("[kill -{name} staprun after {after_s}s] {}", self.command)
                }
            },
            processes,
            maps: self.maps,
            left: loaded
                .map(|module| format!("{}(used={})", module.name, module.users))
                .collect(),
        })
    }
}

impl Recording {
    /// The exit code as a shell has it: 128 and the signal for a process that was killed.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal().map(|signal| 128 + signal);
        self.status.code().or(signal).unwrap_or(-1)
    }

    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The files `NAME.stdout`, `NAME.stderr`, `NAME.meta` and so on.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        let put = |ending: &str, content: &[u8]| {
            let path = folder.join(format!("{name}.{ending}"));
            fs::write(&path, content).with_context(|| path.display().to_string())
        };
        put("stdout", &self.stdout)?;
        put("stderr", &self.stderr)?;
        put("proc-pid-maps", &self.maps)?;
        let meta = format!(
            "{name}\trc={}\twall={:.1}s\twhere=guest\tcmd={}\n  lsmod-after: {}\n",
            self.code(),
            self.wall.as_secs_f64(),
            self.command,
            self.left.join(" ")
        );
        put("meta", meta.as_bytes())?;
        if let Some(processes) = &self.processes {
            put("ps", processes.as_bytes())?;
        }
        if let Some(stopping) = self.stopping {
            let text = format!("signal->exit {:.2}s\n", stopping.as_secs_f64());
            put("sigtime", text.as_bytes())?;
        }
        Ok(())
    }

    /// Fails unless it ended with this code; the error quotes what was said.
    pub fn require_code(&self, code: i32) -> Result<()> {
        ensure!(
            self.code() == code,
            "`{}` ended with {}: {}{}",
            self.command,
            self.code(),
            self.stdout(),
            self.stderr()
        );
        Ok(())
    }
}

/// The workload as it is in every guest that samples it: the path is the same here and there.
fn split() -> Result<PathBuf> {
    Workload::Split.compile(Build::default())
}

fn stacks() -> Result<PathBuf> {
    Workload::Stacks.compile(Build::default())
}

fn start_program(
    guest: &Guest,
    program: &Path,
    seconds: u32,
    depth: u32,
) -> Result<(i32, Vec<RemoteChild>)> {
    let program = program.to_string_lossy().into_owned();
    let child = guest.start(&[&program, &seconds.to_string(), &depth.to_string()])?;
    child.wait_for_line("ready", READY)?;
    Ok((child.pid()?, vec![child]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_can_be_read() {
        let cases = fs::read_dir(Case::folder().join("cases")).expect("the cases");
        let names = cases
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let read: Vec<Case> = names
            .map(|name| Case::named(&name).expect("a case"))
            .collect();
        assert!(read.len() > 5, "{read:?}");
    }

    #[test]
    fn what_a_case_cannot_say_is_an_error() {
        let read = |text: &str| Case::read("x", text, |_| Ok(String::new()));
        let whole = "script a.stp\nmodule a\ntarget split 1 2\nend INT 3\n";
        let case = read(whole).expect("a case");
        assert_eq!(case.target, Target::Split(1, 2));
        assert_eq!(case.end, End::Signal(Signal::SIGINT, 3));
        for bad in ["end", "end WORD 3", "target nothing", "unknown word"] {
            assert!(read(&format!("{whole}{bad}\n")).is_err(), "{bad}");
        }
        assert!(read("script a.stp\nmodule a\ntarget split 1 2\n").is_err());
    }
}
