//! Inventories as Ansible's documentation shows them, and broken ones.

use super::*;

const INI: &str = "\
mail.example.com

[kong]
kong-[01:02].example ansible_user=deploy   # the old ones
kong-x ansible_host=10.0.0.9 ansible_port=2222 note=\"two words\"
here ansible_connection=local

[bj]
kong-01.example
[china:children]
bj
[china:vars]
region=cn
ansible_user=ops
db_password=hunter2
";

fn ssh(text: &str) -> Reach {
    Reach::Ssh(text.parse().unwrap())
}

fn by_name(hosts: &[InventoryHost]) -> BTreeMap<&str, &InventoryHost> {
    hosts.iter().map(|h| (h.host.name.as_str(), h)).collect()
}

#[test]
fn the_ini_form_has_groups_ranges_and_variables() {
    let hosts = from_ini(INI).unwrap();
    let names: Vec<&str> = hosts.iter().map(|h| h.host.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "mail.example.com",
            "kong-01.example",
            "kong-02.example",
            "kong-x",
            "here"
        ]
    );
    let hosts = by_name(&hosts);
    let first = hosts["kong-01.example"];
    // The host's own user counts more than its group's.
    assert_eq!(first.host.reach, ssh("deploy@kong-01.example"));
    let groups: Vec<&str> = first.labels["group"].iter().map(String::as_str).collect();
    assert_eq!(groups, ["bj", "china", "kong"]);
    assert!(first.labels["region"].contains("cn"));
    assert!(!first.labels.contains_key("db_password"), "a secret");
    let kept: Vec<&str> = first.host.labels.keys().map(String::as_str).collect();
    assert_eq!(kept, ["group"], "variables are selected by, not kept");
    assert_eq!(hosts["kong-x"].host.reach, ssh("ssh://10.0.0.9:2222"));
    assert!(hosts["kong-x"].labels["note"].contains("two words"));
    assert_eq!(hosts["here"].host.reach, Reach::Local);
    assert!(!hosts["mail.example.com"].labels.contains_key("group"));
}

#[test]
fn the_yaml_form_says_the_same() {
    let text = "
all:
  hosts:
    mail.example.com:
  children:
    china:
      vars: {region: cn, ansible_user: ops}
      children:
        bj:
          hosts:
            kong-[01:02]: {ansible_host: 10.0.0.1, ansible_port: 2222, weight: 3}
";
    let tree: Value = crate::spec::read_tree(text.as_bytes(), "hosts.yaml").unwrap();
    let hosts = from_tree(&tree).unwrap();
    let hosts = by_name(&hosts);
    assert_eq!(hosts.len(), 3);
    let kong = hosts["kong-01"];
    assert_eq!(kong.host.reach, ssh("ssh://ops@10.0.0.1:2222"));
    let groups: Vec<&str> = kong.labels["group"].iter().map(String::as_str).collect();
    assert_eq!(groups, ["bj", "china"]);
    assert!(kong.labels["weight"].contains("3") && kong.labels["region"].contains("cn"));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, line, says) in [
        ("a\n[kong:hostz]\n", Some(2), "[kong:hostz]"),
        ("a\nb note=\"x\n", Some(2), "a quotation mark"),
        ("k[9:1]\n", Some(1), "[9:1] is no range"),
        ("-oProxyCommand=x\n", None, "no ssh destination"),
        ("a ansible_host=$(reboot)\n", None, "no ssh destination"),
        ("a ansible_port=x\n", None, "no port"),
    ] {
        let (at, error) = from_ini(text).unwrap_err();
        assert!(error.contains(says), "{text:?}: {error}");
        assert_eq!(at, line, "{text:?}");
    }
    let circle = "[a]\nx\n[a:children]\nb\n[b:children]\na\n";
    assert_eq!(from_ini(circle).unwrap().len(), 1);
    let tree = serde_json::json!({"all": {"host": {"a": null}}});
    assert!(from_tree(&tree).unwrap_err().contains("hosts, children"));
    assert!(from_tree(&serde_json::json!([])).is_err());
}
