//! Debian's kernel for the guests, with what modules are compiled against.
//!
//! In: a folder, apt. Out: the kernel's image, its headers, the drivers that a guest loads at boot.
//! Never: an installation on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::packages;

/// The package that always depends on the release's newest kernel, and the one for its headers.
const IMAGE: &str = "linux-image-amd64";
/// Drivers that a guest cannot do without: its network, on the bus that QEMU gives it.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];
/// Of the image's files, those that are kept.
const KEPT: [&str; 2] = ["boot", "lib/modules"];

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `6.1.0-56-amd64`.
    pub release: String,
    root: PathBuf,
}

impl Kernel {
    /// The kernel in `folder`, fetched when there is none. The caller sees to it that nobody else does so now.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let root = folder.join("kernel");
        let mark = root.join("release");
        if !mark.is_file() {
            let scratch = tempfile::tempdir_in(folder)?;
            let unpacked = scratch.path().join("kernel");
            fetch(scratch.path(), &unpacked, &root)?;
            fs::rename(&unpacked, &root)?;
        }
        let release = fs::read_to_string(mark)?;
        Ok(Self { release, root })
    }

    /// What QEMU boots.
    pub fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// What `stap -r` takes.
    pub fn headers(&self) -> PathBuf {
        self.root.join(headers_in_root(&self.release))
    }

    /// The files of the drivers that a guest loads, each behind those that it depends on.
    pub fn boot_drivers(&self) -> Result<Vec<PathBuf>> {
        let modules = self.root.join("lib/modules").join(&self.release);
        let mut files = BTreeMap::new();
        collect_modules(&modules.join("kernel"), &mut files)?;
        let mut ordered = Vec::new();
        for driver in DRIVERS {
            place(driver, &files, &mut ordered)?;
        }
        Ok(ordered)
    }
}

fn headers_in_root(release: &str) -> String {
    format!("usr/src/linux-headers-{release}")
}

/// Fetches and unpacks everything into `unpacked`, which will lie at `root` afterwards.
fn fetch(scratch: &Path, unpacked: &Path, root: &Path) -> Result<()> {
    let image = packages::versioned(&packages::dependencies(IMAGE)?, "linux-image-")?.clone();
    let release = image.trim_start_matches("linux-image-").to_owned();
    let headers = format!("linux-headers-{release}");
    let mut wanted = packages::dependencies(&headers)?;
    wanted.retain(|name| name.starts_with("linux-"));
    wanted.extend([headers, image.clone()]);
    let full = scratch.join("full");
    for file in packages::fetch(&wanted, scratch)? {
        let is_image = file
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&image));
        packages::unpack(&file, if is_image { &full } else { unpacked })?;
    }
    for part in KEPT {
        let to = unpacked.join(part);
        fs::create_dir_all(to.parent().context("a path with a parent")?)?;
        // The headers' package brings a lib/modules with a link for an installed system.
        if to.is_dir() {
            fs::remove_dir_all(&to)?;
        }
        fs::rename(full.join(part), to)?;
    }
    lead_home(
        &unpacked.join(headers_in_root(&release)).join("Makefile"),
        root,
    )?;
    fs::write(unpacked.join("release"), release)?;
    Ok(())
}

/// The headers' Makefile includes the common one by its installed path.
fn lead_home(makefile: &Path, root: &Path) -> Result<()> {
    let text = fs::read_to_string(makefile).with_context(|| makefile.display().to_string())?;
    let sources = format!("include {}/usr/src/", root.display());
    fs::write(makefile, text.replace("include /usr/src/", &sources))?;
    Ok(())
}

/// Modules by name; in names `-` and `_` are the same.
fn collect_modules(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_modules(&path, files)?;
        } else if let (Some(stem), Some("ko")) = (
            path.file_stem().and_then(|stem| stem.to_str()),
            path.extension().and_then(|end| end.to_str()),
        ) {
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn place(name: &str, files: &BTreeMap<String, PathBuf>, ordered: &mut Vec<PathBuf>) -> Result<()> {
    // What is built into the kernel has no file.
    let Some(file) = files.get(name) else {
        return Ok(());
    };
    if ordered.contains(file) {
        return Ok(());
    }
    for needed in needs(&fs::read(file)?) {
        place(&needed, files, ordered)?;
    }
    ordered.push(file.clone());
    Ok(())
}

/// What a module says of itself in `.modinfo`: texts `name=value`, each with a NUL behind it.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let text: Vec<u8> = value
        .iter()
        .copied()
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&text)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let needed = needs(b"\x7fELF..\0license=GPL\0depends=net_failover,virtio-ring\0name=x\0");
        assert_eq!(needed, ["net_failover", "virtio_ring"]);
        assert!(needs(b"\0depends=\0").is_empty());
        assert!(needs(b"nothing").is_empty());
    }

    #[test]
    fn drivers_stand_behind_what_they_need() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, needed: &str| {
            fs::write(dir.path().join(name), format!("\0depends={needed}\0")).expect("a file");
        };
        write("virtio_net.ko", "net_failover,virtio");
        write("net-failover.ko", "failover");
        write("failover.ko", "");
        write("virtio.ko", "built_in");
        let mut files = BTreeMap::new();
        collect_modules(dir.path(), &mut files).expect("found");
        let mut ordered = Vec::new();
        place("virtio_net", &files, &mut ordered).expect("placed");
        let names: Vec<_> = ordered.iter().map(|path| path.file_name()).collect();
        let expected = [
            "failover.ko",
            "net-failover.ko",
            "virtio.ko",
            "virtio_net.ko",
        ];
        assert_eq!(names, expected.map(|name| Some(name.as_ref())));
    }
}
