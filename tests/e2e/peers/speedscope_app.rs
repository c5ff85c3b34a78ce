//! speedscope: its own schema, and the app itself in a browser.
//!
//! In: a fleet's profile. Out: valid JSON with equal sums; frames on the screen. Never: a file that
//! only a parser of ours accepts.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use fleetflame_tests::{Browser, Files, requirements};
use serde_json::Value;

use crate::{fleetflame, kept, run, sampled_fleet};

const BUNDLES: &str = "/usr/local/lib/node_modules";
const RELEASE: &str = "/usr/local/lib/node_modules/speedscope/dist/release";
const SHOWN: Duration = Duration::from_secs(60);

/// Validates a file against the schema that speedscope ships. Strict: a keyword that the validator
/// does not know is an error, not passed over.
const VALIDATE: &str = r#"
const fs = require("fs"), Ajv = require(process.argv[1]);
const read = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
const ajv = new (Ajv.default || Ajv)({ strictSchema: true, allErrors: true });
const valid = ajv.validate(read(process.argv[2]), read(process.argv[3]));
if (!valid) { console.error(ajv.errorsText().slice(0, 2000)); process.exit(1); }
"#;

fn validate(file: &Path) -> Result<()> {
    let schema = Path::new(RELEASE).join("file-format-schema.json");
    let ajv = Path::new(BUNDLES).join("ajv/dist/ajv.js");
    requirements::file(&schema, "speedscope of npm")?;
    requirements::file(&ajv, "ajv of npm")?;
    let mut node = Command::new(requirements::command("node")?);
    node.args(["-e", VALIDATE]).arg(ajv).arg(schema).arg(file);
    run(node).map(drop)
}

#[test]
fn what_is_exported_is_valid_by_speedscope_s_schema_and_adds_up() -> Result<()> {
    let stage = tempfile::tempdir()?;
    let profile = sampled_fleet::write(&stage.path().join("fleet.ffz"))?;
    fleetflame(
        stage.path(),
        &["export", "fleet.ffz", "-o", "fleet.speedscope.json"],
    )?;
    let file = stage.path().join("fleet.speedscope.json");
    validate(&file)?;
    let json: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let mut sums = BTreeMap::<&str, u64>::new();
    let profiles = json["profiles"].as_array().context("profiles")?;
    for one in profiles {
        let unit = one["unit"].as_str().context("unit")?;
        let weights = one["weights"].as_array().context("weights")?;
        *sums.entry(unit).or_default() += weights.iter().filter_map(Value::as_u64).sum::<u64>();
    }
    let [samples, cpu, _] = profile.grand_total();
    assert_eq!(
        sums,
        BTreeMap::from([("none", samples), ("nanoseconds", cpu)])
    );
    assert_eq!(profiles.len(), 2 * 2 * sampled_fleet::HOSTS.len());

    // The validator does find what is wrong.
    let broken = stage.path().join("broken.json");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(
        &broken,
        text.replacen("\"unit\":\"none\"", "\"unit\":\"samples\"", 1),
    )?;
    let error = validate(&broken).err().context("a unit that is none")?;
    assert!(format!("{error:#}").contains("/profiles/0"), "{error:#}");
    Ok(())
}

#[test]
fn speedscope_shows_the_frames() -> Result<()> {
    let stage = tempfile::tempdir()?;
    sampled_fleet::write(&stage.path().join("fleet.ffz"))?;
    fleetflame(
        stage.path(),
        &[
            "export",
            "fleet.ffz",
            "--format",
            "speedscope",
            "-o",
            "fleet.json",
        ],
    )?;
    requirements::file(&Path::new(RELEASE).join("index.html"), "speedscope of npm")?;
    let files = Files::serve(&[("app", Path::new(RELEASE)), ("data", stage.path())])?;
    let browser = Browser::start()?;
    let data = files.url("data/fleet.json");
    let page = format!("{}#profileURL={data}", files.url("app/index.html"));
    browser.open(&page)?;
    // The graph itself is a canvas; the list of functions of the sandwich view is text.
    browser.wait_for("return document.querySelector('canvas') !== null", SHOWN)?;
    let tab = "return [...document.querySelectorAll('div')].filter(d => d.children.length <= 1 && \
               d.textContent.includes('Sandwich')).pop()";
    browser.click_on(tab, &[])?;
    for name in [
        "rate-limiting/handler.lua:42 access",
        "rate-limiting/handler.lua:42 access_[j]",
        "acl/handler.lua:42 access",
        "do_syscall_64_[k]",
        "ngx_memcpy_[i]",
        "[libc.so.6]+0x91a20",
    ] {
        let script = format!(
            "return document.body.innerText.includes({})",
            Value::from(name)
        );
        let shown = browser.wait_for(&script, SHOWN);
        let text = browser.run("return document.body.innerText", &[])?;
        shown.with_context(|| format!("{name} in {text}"))?;
    }
    let text = browser.run("return document.body.innerText", &[])?;
    let text = text.as_str().unwrap_or_default();
    let first = "kong-1 nginx: worker 0 (pid 800) cpu-clock, samples (1/12)";
    assert!(text.contains(first), "{text}");
    let picture = kept("pictures")?.join("speedscope.png");
    std::fs::write(&picture, browser.screenshot()?)?;
    println!("{}", picture.display());
    Ok(())
}
