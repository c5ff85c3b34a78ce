//! Hosts from inventories and destinations, as a user types them: what is wrong is said, and nothing is
//! reached.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use assert_cmd::Command;
use std::process::Output;

fn fleetflame(arguments: &[&str], stdin: &str) -> Output {
    let mut command = Command::cargo_bin("fleetflame").unwrap();
    let command = command.args(arguments).write_stdin(stdin);
    command.output().unwrap()
}

#[test]
fn the_example_is_an_inventory_that_can_be_selected_from() {
    let example = fleetflame(&["example", "fleet"], "");
    fleetflame::spec::read_fleet(&example.stdout, "example").unwrap();
    let text = String::from_utf8(example.stdout).unwrap();
    let none = fleetflame(
        &[
            "plan", "--fleet", "-", "--select", "dc=tokyo", "--target", "nginx",
        ],
        &text,
    );
    assert_eq!(none.status.code(), Some(2));
    let said = String::from_utf8(none.stderr).unwrap();
    assert!(said.contains("fits none of the 4 hosts of stdin"), "{said}");
}

#[test]
fn a_mistake_is_wrong_usage_and_names_its_place() {
    for (arguments, stdin, wanted) in [
        (
            &["plan", "--fleet", "-", "--target", "nginx"][..],
            "kong-1\n[kong:hostz]\n",
            "stdin:2:1: [kong:hostz] is no section",
        ),
        (
            &[
                "plan", "--fleet", "-", "--select", "dc in (", "--target", "nginx",
            ],
            "kong-1\n",
            "parenthesis open",
        ),
        (
            &["doctor", "--ssh=-oProxyCommand=reboot"],
            "",
            "is not a host name",
        ),
        (
            &["doctor", "--ssh=-lroot"],
            "",
            "no ssh destination: a host is letters",
        ),
        (
            &["doctor", "--ssh=a=$(reboot)"],
            "",
            "no ssh destination: a host is letters",
        ),
        (&["doctor", "--ssh", "a,b,a"], "", "host a is listed twice"),
        (
            &["doctor", "--fleet", "no-such-file.yaml"],
            "",
            "no-such-file.yaml",
        ),
    ] {
        let output = fleetflame(arguments, stdin);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
}
