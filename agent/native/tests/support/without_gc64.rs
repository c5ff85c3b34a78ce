//! A LuaJIT with references of 32 bits, as nobody packages it: built once from the sources of the crate luajit-src.
//! In: nothing. Out: the program, in cargo's target folder. Never: the network, a build that was not finished.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program. Building it takes 20 s of two CPUs, once.
pub fn luajit() -> PathBuf {
    let sources = sources();
    let version = sources.file_name().unwrap().to_str().unwrap();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = kept.join(format!("{version}-without-gc64"));
    if program.exists() {
        return program;
    }
    let dir = tempfile::tempdir_in(kept).unwrap();
    succeed(
        Command::new("cp")
            .arg("-r")
            .arg(sources.join("luajit2"))
            .arg(dir.path()),
    );
    let tree = dir.path().join("luajit2");
    // Without it the version is asked of git.
    std::fs::copy(sources.join("luajit_relver.txt"), tree.join(".relver")).unwrap();
    // With symbols, so that the C frames can be held against what LuaJIT does.
    succeed(Command::new("make").arg("-C").arg(tree.join("src")).args([
        "-j2",
        "--silent",
        "BUILDMODE=static",
        "CCDEBUG=-g",
        "XCFLAGS=-DLUAJIT_DISABLE_GC64",
        "luajit",
    ]));
    std::fs::rename(tree.join("src/luajit"), &program).unwrap();
    program
}

/// Where cargo has put the crate.
fn sources() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .args([
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let manifest = text
        .split('"')
        .find(|path| path.contains("/luajit-src-") && path.ends_with("/Cargo.toml"));
    let manifest =
        manifest.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    Path::new(manifest).parent().unwrap().to_path_buf()
}

fn succeed(command: &mut Command) {
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "{command:?}: {status:?}"
    );
}
