//! Which module is taken, and which is not.
//!
//! In: a folder. Out: nothing. Never: a module of another kernel, script or content that is taken.

use super::*;
use crate::engine::stap::probes;
use model::profile::BuildId;
use std::os::unix::fs::PermissionsExt;

fn image(path: &str, id: u8) -> MappedImage {
    MappedImage {
        path: path.to_owned(),
        build_id: BuildId::new(&[id; 20]),
    }
}

fn wanted() -> Wanted {
    Wanted {
        probe: probes::ON_CPU_USER,
        kernel: ("6.1.0-56-amd64".to_owned(), "#1 SMP".to_owned()),
        period_ns: 10_101_010,
        bounds: Bounds::NONE,
        unguarded: false,
        demand: Demand {
            per_second: 99,
            duration_ms: 10_000,
            cpus: 2,
            running: 2,
            kernel: false,
            copies: false,
            waits: false,
            memory_mb: 256,
            cpu_pct: 10,
        },
        images: vec![image("/usr/sbin/nginx", 1), image("/lib/libc.so.6", 2)],
        heap: None,
    }
}

/// A folder with a module of `wanted`.
fn built(wanted: &Wanted) -> (tempfile::TempDir, PathBuf, String) {
    let stage = tempfile::tempdir().unwrap();
    let folder = stage.path().join("modules");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let sizes = Sizes::of(wanted.demand, &wanted.bounds).unwrap();
    let name = wanted.name(&sizes, "4.8", None);
    fs::write(folder.join(format!("{name}.ko")), "a module").unwrap();
    let images = wanted.images.iter().map(ImageOf::from).collect();
    write_manifest(&folder, &name, wanted, &sizes, "4.8", images).unwrap();
    (stage, folder, name)
}

/// What a refusal says, and the change that brings it.
type Change = (&'static str, fn(&mut Wanted));

#[test]
fn a_module_is_found_again_and_one_of_another_thing_is_not() {
    let wanted = wanted();
    let (_stage, folder, name) = built(&wanted);
    let folders = [folder];
    let found = find(&folders, &wanted).unwrap();
    assert_eq!((found.name, found.uncovered.len()), (name, 0));
    assert_eq!(count(&folders, "6.1.0-56-amd64"), (1, Vec::new()));
    let (none, why) = count(&folders, "6.1.0-57-amd64");
    assert!(
        none == 0 && why[0].ends_with("is for 6.1.0-56-amd64"),
        "{why:?}"
    );
    let changes: [Change; 7] = [
        ("kernel is", |w| w.kernel.0 = "6.1.0-57-amd64".into()),
        ("kernel's build", |w| w.kernel.1 = "#2 SMP".into()),
        ("probe", |w| w.probe = probes::ON_CPU_MIXED),
        ("period", |w| w.period_ns += 1),
        ("MiB here", |w| w.demand.cpus = 256),
        ("rows", |w| w.demand.per_second = 999),
        // A retry after a full map must not get the same module again.
        ("rows, and", |w| w.bounds.rows_min = 1_000),
    ];
    for (words, change) in changes {
        let mut other = wanted.clone();
        change(&mut other);
        let why = find(&folders, &other).unwrap_err();
        assert!(why.contains(words), "{words}: {why}");
    }
}

#[test]
fn a_module_whose_kernel_s_build_is_not_known_or_of_an_old_systemtap_is_judged_by_that() {
    let wanted = wanted();
    let elsewhere = Wanted {
        kernel: (wanted.kernel.0.clone(), String::new()),
        ..wanted.clone()
    };
    let (_stage, folder, name) = built(&elsewhere);
    assert_eq!(
        find(std::slice::from_ref(&folder), &wanted).unwrap().name,
        name
    );
    let path = folder.join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap();
    for old in ["4.3", "2.3", "?"] {
        fs::write(&path, text.replace("\"4.8\"", &format!("\"{old}\""))).unwrap();
        let why = find(std::slice::from_ref(&folder), &wanted).unwrap_err();
        assert!(why.contains("4.4 is the oldest"), "{why}");
    }
}

#[test]
fn a_file_of_another_build_is_uncovered_and_gives_another_name() {
    let wanted = wanted();
    let (_stage, folder, name) = built(&wanted);
    let mut other = wanted.clone();
    other.images[0] = image("/usr/sbin/nginx", 9);
    let found = find(&[folder], &other).unwrap();
    let uncovered: Vec<&String> = found.uncovered.keys().collect();
    assert_eq!(uncovered, ["/usr/sbin/nginx"]);
    let sizes = Sizes::of(other.demand, &other.bounds).unwrap();
    assert_ne!(other.name(&sizes, "4.8", None), name);
    assert_ne!(wanted.name(&sizes, "5.1", None), name);
    assert_ne!(wanted.name(&sizes, "4.8", Some(Path::new("/r"))), name);
    assert!(command::is_ours(&name));
}

#[test]
fn a_module_that_was_changed_or_could_have_been_is_not_used() {
    let wanted = wanted();
    let (_stage, folder, name) = built(&wanted);
    fs::write(folder.join(format!("{name}.ko")), "another module").unwrap();
    let why = find(std::slice::from_ref(&folder), &wanted).unwrap_err();
    assert!(why.contains("not what its manifest says"), "{why}");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let why = find(std::slice::from_ref(&folder), &wanted).unwrap_err();
    assert!(why.contains("written by others"), "{why}");
}
