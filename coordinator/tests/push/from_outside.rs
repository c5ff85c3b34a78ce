//! `fleetflame push` and `export --format otlp` as a user types them. In: a run directory, stores. Out: exit codes, the
//! ledger, what arrived. Never: a credential on the command line.

use crate::store::{ALL, Fault, StoreServer, Taken};
use crate::{HOSTS, assert_each_host_once, run_in};
use assert_cmd::Command;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use prost::Message as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn fleetflame(root: &Path, arguments: &[&str], auth: Option<&str>) -> Said {
    let mut command = Command::cargo_bin("fleetflame").unwrap();
    command
        .current_dir(root)
        .args(arguments)
        .env_remove("FLEETFLAME_PUSH_AUTH");
    if let Some(auth) = auth {
        command.env("FLEETFLAME_PUSH_AUTH", auth);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn without_headers(taken: Vec<Taken>) -> Vec<Taken> {
    let bare = |t: Taken| Taken {
        headers: Default::default(),
        ..t
    };
    taken.into_iter().map(bare).collect()
}

#[test]
fn what_was_accepted_is_not_sent_again_unless_it_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    let (pyroscope, parca) = (StoreServer::start(ALL), StoreServer::start(ALL));
    let (to_pyroscope, to_parca) = (
        format!("pyroscope:http://{}", pyroscope.address),
        format!("parca:http://{}/", parca.address),
    );
    let to = [
        "push",
        "./kong-cpu",
        "--to",
        &to_pyroscope,
        "--to",
        &to_parca,
    ];
    let said = fleetflame(root.path(), &to, None);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains(&format!(
        "{to_pyroscope}: 3 sent, 0 accepted before, 0 failed"
    )));
    let first = without_headers(pyroscope.taken());
    assert_each_host_once(&first);
    assert_each_host_once(&parca.taken());
    let ledger = root.path().join("kong-cpu/pushed.json");
    assert_eq!(
        std::fs::metadata(&ledger).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let said = fleetflame(root.path(), &[&to[..], &["--json"]].concat(), None);
    assert_eq!(said.code, Some(0));
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let already: Vec<&str> = document["targets"][0]["already"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h.as_str().unwrap())
        .collect();
    assert_eq!(already, HOSTS);
    assert_eq!((pyroscope.requests(), parca.requests()), (3, 3));

    // Again: the same bytes, labels and ids.
    let said = fleetflame(root.path(), &[&to[..4], &["--again"]].concat(), None);
    assert_eq!(said.code, Some(0));
    let twice = without_headers(pyroscope.taken());
    assert_eq!((&twice[..3], &twice[3..]), (&first[..], &first[..]));

    // Other labels are another profile.
    let said = fleetflame(
        root.path(),
        &[&to[..4], &["--label", "cluster=bj"]].concat(),
        None,
    );
    assert_eq!((said.code, pyroscope.requests()), (Some(0), 9));
    assert_eq!(pyroscope.taken()[8].labels["cluster"], "bj");

    std::fs::write(&ledger, "{").unwrap();
    let said = fleetflame(root.path(), &to, None);
    assert!(
        said.code == Some(1) && said.stderr.contains("remove it"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_part_that_failed_is_told_with_its_remedy_and_sent_the_next_time() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    let server = StoreServer::start_with(ALL, vec![Fault::Invalid], None, None);
    let to = format!("parca:http://{}", server.address);
    let said = fleetflame(root.path(), &["push", "./kong-cpu", "--to", &to], None);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(
        said.stderr
            .contains("kong-1: InvalidArgument: a label is wrong"),
        "{}",
        said.stderr
    );
    let said = fleetflame(root.path(), &["push", "./kong-cpu", "--to", &to], None);
    assert!(
        said.stdout.contains("1 sent, 2 accepted before, 0 failed"),
        "{}",
        said.stdout
    );
    assert_eq!(said.code, Some(0));
    assert_each_host_once(&server.taken());

    let refuses = StoreServer::start_with(ALL, vec![Fault::Unauthenticated], None, None);
    let to = format!("pyroscope:http://{}", refuses.address);
    let said = fleetflame(root.path(), &["push", "./kong-cpu", "--to", &to], None);
    assert_eq!(
        (said.code, refuses.requests()),
        (Some(1), 1),
        "{}",
        said.stderr
    );
}

#[test]
fn credentials_come_from_the_environment_or_a_closed_file_and_never_leave_in_the_clear() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    let server = StoreServer::start(ALL);
    let to = format!("pyroscope:http://{}", server.address);
    let one = [
        "push",
        "kong-cpu:kong-2",
        "--runs",
        ".",
        "--to",
        &to,
        "--again",
        "--tenant",
        "gateways",
    ];
    let said = fleetflame(root.path(), &one, Some("t0ken"));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let taken = server.taken();
    assert_eq!(
        (taken.len(), taken[0].labels["host"].as_str()),
        (1, "kong-2")
    );
    assert_eq!(taken[0].headers["authorization"], "Bearer t0ken");
    assert_eq!(taken[0].headers["x-scope-orgid"], "gateways");

    let file = root.path().join("auth");
    std::fs::write(&file, "basic me:secret\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let with_file = [&one[..], &["--auth-file", "auth"]].concat();
    let said = fleetflame(root.path(), &with_file, None);
    assert!(
        said.code == Some(2) && said.stderr.contains("chmod 600"),
        "{}",
        said.stderr
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = fleetflame(root.path(), &with_file, None);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(
        server.taken()[1].headers["authorization"],
        "Basic bWU6c2VjcmV0"
    );

    let open = [
        "push",
        "./kong-cpu",
        "--to",
        "pyroscope:http://192.0.2.1:4040",
    ];
    let said = fleetflame(root.path(), &open, Some("t0ken"));
    assert!(
        said.code == Some(2) && said.stderr.contains("use https"),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("t0ken"));
}

#[test]
fn a_store_behind_tls_has_to_prove_who_it_is() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(root.path().join("ca.pem"), cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let server = StoreServer::start_with(ALL, vec![], None, Some(tls));
    let to = format!("pyroscope:https://localhost:{}", server.address.port());
    let push = ["push", "./kong-cpu", "--to", &to];
    // Its own certificate is trusted; another one's is not.
    let other = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["other".to_owned()]).unwrap();
    let other = params.self_signed(&other).unwrap();
    std::fs::write(root.path().join("other.pem"), other.pem()).unwrap();
    let said = fleetflame(
        root.path(),
        &[&push[..], &["--ca", "other.pem"]].concat(),
        Some("t0ken"),
    );
    assert_eq!(
        (said.code, server.requests()),
        (Some(1), 0),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("--ca"), "{}", said.stderr);
    let said = fleetflame(
        root.path(),
        &[&push[..], &["--ca", "ca.pem"]].concat(),
        Some("t0ken"),
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_each_host_once(&server.taken());
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    std::fs::write(root.path().join("a.folded"), "main 1\n").unwrap();
    let to = "parca:http://127.0.0.1:9";
    let cases: [(&[&str], &str); 6] = [
        (&["push", "./kong-cpu"], "--to"),
        (
            &["push", "./kong-cpu", "--to", "127.0.0.1:4040"],
            "pyroscope:URL",
        ),
        (
            &["push", "./kong-cpu", "--to", "parca:http://a:b@c"],
            "FLEETFLAME_PUSH_AUTH",
        ),
        (
            &["push", "./kong-cpu", "--to", to, "--label", "host=x"],
            "set by fleetflame",
        ),
        (&["push", "a.folded", "--to", to], "is a file, not a run"),
        (&["push", "absent", "--to", to], "absent"),
    ];
    for (arguments, wanted) in cases {
        let said = fleetflame(root.path(), arguments, None);
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(
            said.stderr.contains(wanted),
            "{arguments:?}: {}",
            said.stderr
        );
    }
}

#[test]
fn a_run_is_exported_as_otlp() {
    let root = tempfile::tempdir().unwrap();
    run_in(root.path());
    let said = fleetflame(
        root.path(),
        &["export", "./kong-cpu", "-o", "kong.otlp"],
        None,
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let bytes = std::fs::read(root.path().join("kong.otlp")).unwrap();
    let data = ProfilesData::decode(&bytes[..]).unwrap();
    assert_eq!(data.resource_profiles.len(), 6);
    let profiles = data
        .resource_profiles
        .iter()
        .flat_map(|r| &r.scope_profiles)
        .flat_map(|s| &s.profiles);
    let sum: i64 = profiles
        .flat_map(|p| &p.samples)
        .flat_map(|s| &s.values)
        .sum();
    // 42 samples a worker, two workers, 1 + 2 + 3 times; and each with its CPU time.
    assert_eq!(sum, 42 * 2 * 6 * (1 + 10_101_010));
    let help = fleetflame(root.path(), &["export", "--help"], None);
    assert!(help.stdout.contains("otlp is unstable"), "{}", help.stdout);
}
