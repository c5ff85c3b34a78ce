//! Which module of a script is taken, and what is said where there is none.
//!
//! In: a folder with the manifest of a module of this test's own program. Out: nothing. Never: a module of another text,
//! kernel or build, or for fewer processes, that is taken.

use super::*;
use std::os::unix::fs::PermissionsExt;

const SCRIPT: &str =
    "probe process(\"$^exec_path\").syscall { if ($^pid_ok) println($^arg_n :default(1)) }\n";

fn wanted() -> WantedScript {
    let own = std::env::current_exe().unwrap();
    let own = own.canonicalize().unwrap().display().to_string();
    WantedScript {
        script: Script {
            file: "a.sxx".into(),
            text: SCRIPT.into(),
            ..Script::default()
        },
        bindings: Bindings {
            exec_path: Some(own),
            ..Bindings::default()
        },
        pids: vec![70, 80],
        kernel: ("6.1.0-56-amd64".into(), "#1 SMP".into()),
    }
}

/// With another value of the script's argument.
fn with_n(mut wanted: WantedScript, n: &str) -> WantedScript {
    let value = (n.to_owned(), n.to_owned().into_bytes());
    wanted.script.arguments.insert("n".into(), value.0);
    wanted.bindings.arguments.insert("n".into(), value.1);
    wanted
}

fn manifest(wanted: &WantedScript, processes: u32) -> ScriptManifest {
    let ahead = expand_script_ahead(&wanted.script, &wanted.bindings, processes).unwrap();
    let exec = image_of(wanted.bindings.exec_path.as_deref().unwrap()).unwrap();
    ScriptManifest {
        version: MANIFEST_VERSION,
        file: wanted.script.file.clone(),
        script: hash_of(&wanted.script),
        arguments: wanted.script.arguments.clone(),
        expanded: ahead.hash(),
        processes: ahead.processes,
        images: vec![exec.clone()],
        exec,
        libraries: Vec::new(),
        kernel: wanted.kernel.0.clone(),
        build: String::new(),
        stap: "4.8".into(),
        module: blake3::hash(b"a module").to_hex().to_string(),
    }
}

const NAME: &str = "ff_0123456789abcdef";

/// A closed folder with a module of this manifest.
fn folder(manifest: &ScriptManifest) -> (tempfile::TempDir, [PathBuf; 1]) {
    let stage = tempfile::tempdir().unwrap();
    let folder = stage.path().join("modules");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(folder.join(format!("{NAME}.ko")), "a module").unwrap();
    write_manifest(&folder, NAME, manifest).unwrap();
    (stage, [folder])
}

#[test]
fn a_script_s_module_is_found_and_told_its_processes() {
    let wanted = wanted();
    let (_stage, folders) = folder(&manifest(&wanted, 2));
    let found = wanted.find(&folders, "").unwrap();
    assert_eq!((&*found.name, found.is_kept), (NAME, true));
    assert_eq!(found.parameters, ["ff_process_1=70", "ff_process_2=80"]);
    assert!(found.told_of().is_empty());
    // The default said aloud is the same text.
    assert!(with_n(wanted.clone(), "1").find(&folders, "").is_ok());
    // A library that is mapped, and not in it, is told.
    let mut more = wanted.clone();
    more.bindings.libraries.insert("/no/such/libx.so".into());
    // It takes no stacks, so nothing is missing of one.
    assert!(more.find(&folders, "").unwrap().told_of().is_empty());
    more.script.text.push_str("# ubacktrace()\n");
    let (_stage, folders) = folder(&manifest(&more, 2));
    let told = more.find(&folders, "").unwrap().told_of();
    assert_eq!(told[0].code, FindingCode::StapUnwindMissing);
}

#[test]
fn a_module_of_anything_else_is_not_taken_and_the_nearest_s_reason_is_told() {
    let wanted = wanted();
    let (_stage, folders) = folder(&manifest(&wanted, 2));
    type Change = (&'static str, fn(&mut WantedScript));
    let changes: [Change; 6] = [
        ("it is of another script, a.sxx", |w| {
            w.script.text.push(' ')
        }),
        ("its kernel is 6.1.0-56-amd64, not 6.1.0-57-amd64", |w| {
            w.kernel.0 = "6.1.0-57-amd64".into();
        }),
        ("its program is", |w| {
            w.bindings.exec_path = Some("/bin/sh".into())
        }),
        ("it was built with no arguments, not with n=2", |w| {
            *w = with_n(w.clone(), "2")
        }),
        ("it is for 2 processes, not for 3", |w| w.pids.push(90)),
        ("$^arg_n", |w| {
            // Neither a value nor a default: nothing could be built either.
            w.script.text = "probe p { println($^arg_n) }".into();
        }),
    ];
    for (words, change) in changes {
        let mut other = wanted.clone();
        change(&mut other);
        let refused = other.find(&folders, "no stap here").map(|found| found.name);
        let finding = refused.unwrap_err();
        assert_eq!(finding.code, FindingCode::StapScriptModule);
        // The last one never comes to the text: it is another script.
        let words = if words == "$^arg_n" {
            "another script"
        } else {
            words
        };
        assert!(finding.evidence.contains(words), "{words}: {finding}");
        assert!(
            finding
                .evidence
                .starts_with("no stap here; wanted is a.sxx ")
        );
    }
    let mut of_another_build = manifest(&wanted, 2);
    of_another_build.exec.build_id = "00".into();
    let (_stage, folders) = folder(&of_another_build);
    let finding = wanted.find(&folders, "").err().unwrap();
    assert!(
        finding.evidence.contains("of the build 00, and here is"),
        "{finding}"
    );
}

#[test]
fn what_is_missing_is_said_with_the_command_that_builds_it() {
    let mut wanted = with_n(wanted(), "a b");
    wanted.bindings.exec_path = Some("/bin/sh".into());
    wanted.bindings.libraries.insert("/lib/libc.so.6".into());
    let finding = wanted
        .find(&[PathBuf::from("/no/such")], "no stap")
        .err()
        .unwrap();
    let command = "fleetflame-agent build-module --script a.sxx --arg 'n=a b' --exec /bin/sh \
                   --image /lib/libc.so.6 --processes 2 --kernel 6.1.0-56-amd64 --out ./modules";
    assert!(finding.remedy.contains(command), "{finding}");
    assert!(
        finding.evidence.contains(&hash_of(&wanted.script)),
        "{finding}"
    );
    assert!(
        finding.evidence.contains("no script's module lies in"),
        "{finding}"
    );
}

#[test]
fn a_changed_file_or_an_open_folder_is_refused() {
    let wanted = wanted();
    let (_stage, folders) = folder(&manifest(&wanted, 2));
    fs::write(folders[0].join(format!("{NAME}.ko")), "another module").unwrap();
    let why = wanted.find(&folders, "").err().unwrap().evidence;
    assert!(why.contains("not what its manifest says"), "{why}");
    fs::set_permissions(&folders[0], fs::Permissions::from_mode(0o777)).unwrap();
    let why = wanted.find(&folders, "").err().unwrap().evidence;
    assert!(why.contains("written by others"), "{why}");
}
