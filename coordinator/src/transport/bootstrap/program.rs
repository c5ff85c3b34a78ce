//! The agents that can be sent: one for each processor, read and compressed once.
//!
//! In: files that were named, and those beside this program. Out: bytes with their checksums. Never: a
//! program for another processor than the host's.

use super::cksum::cksum;
use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest program that is taken for an agent: a debug build has 50 MB.
const BYTES_MAX: u64 = 256 << 20;

/// A program that is ready to be sent.
pub struct Program {
    /// As it is.
    pub plain: Vec<u8>,
    /// Compressed by gzip.
    pub gzip: Vec<u8>,
    /// What `cksum` says of it.
    pub cksum: u32,
    /// Its BLAKE3 hash, in hex.
    pub blake3: String,
}

impl Program {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let reading = || format!("reading {}", path.display());
        let bytes = std::fs::metadata(path).with_context(reading)?.len();
        anyhow::ensure!(
            bytes <= BYTES_MAX,
            "{} has {bytes} bytes, too many for an agent",
            path.display()
        );
        let plain = std::fs::read(path).with_context(reading)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(&plain)?;
        Ok(Self {
            gzip: encoder.finish()?,
            cksum: cksum(&plain),
            blake3: blake3::hash(&plain).to_hex().to_string(),
            plain,
        })
    }

    /// The name that it is kept under.
    #[must_use]
    pub fn kept_name(&self) -> String {
        format!("agent-{}", &self.blake3[..32])
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, BLAKE3 {}", self.plain.len(), self.blake3)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Programs {
    named: Vec<PathBuf>,
    ready: Mutex<BTreeMap<PathBuf, Arc<Program>>>,
}

impl Programs {
    /// Those that were named with `--agent-binary` come before those beside this program.
    #[must_use]
    pub fn new(named: Vec<PathBuf>) -> Self {
        Self {
            named,
            ready: Mutex::default(),
        }
    }

    /// Reads and compresses the agent of every processor that there is one for. Takes a second of CPU
    /// for the first time; what is missing is told when a host needs it.
    pub fn make_ready(&self) {
        for (machine, _) in MACHINES {
            let _ = self.for_machine(machine);
        }
    }

    /// The agent for a processor, as `uname -m` names it.
    ///
    /// # Errors
    /// Where one was looked for.
    pub fn for_machine(&self, machine: &str) -> anyhow::Result<Arc<Program>> {
        let path = self.path_for(machine)?;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = ready.get(&path) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(Program::read(&path)?);
        ready.insert(path, Arc::clone(&program));
        Ok(program)
    }

    fn path_for(&self, machine: &str) -> anyhow::Result<PathBuf> {
        let Some((name, elf_machine)) = elf_machine(machine) else {
            anyhow::bail!("a processor of kind {machine:?} is not known here");
        };
        let mut candidates = self.named.clone();
        if let Ok(mine) = std::env::current_exe() {
            candidates.push(mine.with_file_name(format!("fleetflame-agent-{name}")));
            candidates.push(mine.with_file_name("fleetflame-agent"));
        }
        let fits = |path: &&PathBuf| machine_of(path) == Some(elf_machine);
        candidates.iter().find(fits).cloned().with_context(|| {
            let looked: Vec<String> = candidates
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            format!("no agent for {name} among: {}", looked.join(", "))
        })
    }
}

/// Processors by our name, and their numbers in ELF headers (`e_machine`, elf(5) and elf.h).
const MACHINES: &[(&str, u16)] = &[("x86_64", 62), ("aarch64", 183)];

fn elf_machine(machine: &str) -> Option<(&'static str, u16)> {
    let name = match machine {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    MACHINES.iter().copied().find(|m| m.0 == name)
}

/// The processor that a 64-bit little-endian ELF file is for.
fn machine_of(path: &Path) -> Option<u16> {
    let mut head = [0; 20];
    let mut file = std::fs::File::open(path).ok()?;
    std::io::Read::read_exact(&mut file, &mut head).ok()?;
    (head[..6] == *b"\x7fELF\x02\x01").then(|| u16::from_le_bytes([head[18], head[19]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_le_bytes());
        bytes.extend([7; 5_000]);
        bytes
    }

    #[test]
    fn each_processor_gets_its_own_program() {
        let stage = tempfile::tempdir().unwrap();
        let (arm, intel) = (stage.path().join("arm"), stage.path().join("intel"));
        std::fs::write(&arm, elf(183)).unwrap();
        std::fs::write(&intel, elf(62)).unwrap();
        let programs = Programs::new(vec![arm, intel.clone()]);
        let program = programs.for_machine("x86_64").unwrap();
        assert_eq!(program.plain, elf(62));
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&program.gzip[..])
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, program.plain);
        assert!(program.gzip.len() < 500);
        std::fs::remove_file(&intel).unwrap();
        let others = Programs::new(vec![intel.clone()]).path_for("aarch64");
        assert!(others.unwrap_err().to_string().contains("aarch64"));
        assert!(programs.for_machine("riscv64").is_err());
        assert_eq!(programs.for_machine("arm64").unwrap().plain, elf(183));
    }
}
