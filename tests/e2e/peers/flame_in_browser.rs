//! Our own flame graph in a browser: search and zoom.
//!
//! In: folded stacks of a few thousand functions. Out: what the page's script does to the picture.
//! Never: a picture that is only looked at as text.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use fleetflame_tests::{Browser, Files};
use serde_json::{Value, json};

use crate::{fleetflame, kept};

const SHOWN: Duration = Duration::from_secs(60);
/// inferno's colour for what a search finds.
const FOUND: &str = "rgb(230,0,230)";

/// Some 4,000 stacks up to 40 deep, as a busy gateway has them; 30 of them, wide enough to be
/// drawn, end in a needle.
fn folded() -> String {
    let mut text = String::new();
    for i in 0_u32..4_000 {
        let _ = write!(text, "nginx: worker;main");
        let mut seed = i.wrapping_mul(2_654_435_761);
        for depth in 0..4 + i % 36 {
            seed = seed.rotate_left(7).wrapping_mul(2_246_822_519);
            let _ = write!(text, ";ngx_http_function_{depth}_{}", seed % 4);
        }
        let mut count = 1 + seed % 50;
        if i % 133 == 0 && i > 0 {
            text.push_str(";needle_in_the_stack");
            count += 400;
        }
        let _ = writeln!(text, " {count}");
    }
    text
}

struct Page {
    browser: Browser,
    #[expect(dead_code, reason = "the picture lies in it")]
    stage: tempfile::TempDir,
}

impl Page {
    fn open(arguments: &[&str]) -> Result<Self> {
        let stage = tempfile::tempdir()?;
        std::fs::write(stage.path().join("big.folded"), folded())?;
        let arguments = [&["flame", "big.folded", "-o", "big.svg"], arguments].concat();
        fleetflame(stage.path(), &arguments)?;
        let files = Files::serve(&[("data", stage.path())])?;
        let browser = Browser::start()?;
        browser.open(&files.url("data/big.svg"))?;
        let drawn = "return document.querySelectorAll('#frames > g').length > 100";
        browser.wait_for(drawn, SHOWN)?;
        // Its script lays the picture out once more after it was loaded.
        let laid_out = "return document.getElementById('unzoom').classList.contains('hide')";
        browser.wait_for(laid_out, SHOWN)?;
        Ok(Self { browser, stage })
    }

    fn number(&self, script: &str) -> Result<u64> {
        let value = self.browser.run(script, &[])?;
        value.as_u64().with_context(|| format!("{value}: {script}"))
    }

    fn frames(&self) -> Result<u64> {
        self.number("return document.querySelectorAll('#frames > g').length")
    }

    fn highlighted(&self) -> Result<Vec<String>> {
        let script = "return [...document.querySelectorAll('#frames > g')].filter(g => \
                      g.querySelector('rect').getAttribute('fill') === arguments[0])\
                      .map(g => g.querySelector('title').textContent)";
        let found = self.browser.run(script, &[json!(FOUND)])?;
        Ok(serde_json::from_value(found)?)
    }

    fn text_of(&self, id: &str) -> Result<String> {
        let script = "return document.getElementById(arguments[0]).textContent";
        let value = self.browser.run(script, &[json!(id)])?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }
}

/// A search is done: the page goes on some time after its prompt was answered.
const SEARCHED: &str = "return document.getElementById('search').classList.contains('show')";
/// The script that finds the frame whose title begins with the first argument.
const BY_NAME: &str = "return [...document.querySelectorAll('#frames > g')].find(g => \
                       g.querySelector('title').textContent.startsWith(arguments[0] + ' (')).\
                       querySelector('rect')";

#[test]
fn search_finds_frames_and_lets_go_of_them() -> Result<()> {
    let page = Page::open(&["--min-width", "0"])?;
    assert_eq!(page.highlighted()?, Vec::<String>::new());
    page.browser.control_and("f")?;
    page.browser.answer_prompt("^needle_in")?;
    page.browser.wait_for(SEARCHED, SHOWN)?;
    let found = page.highlighted()?;
    assert_eq!(found.len(), 30, "{found:?}");
    assert!(
        found.iter().all(|f| f.starts_with("needle_in_the_stack (")),
        "{found:?}"
    );
    let titles = page.number(
        "return [...document.querySelectorAll('#frames title')].filter(t => \
         t.textContent.startsWith('needle_in')).length",
    )?;
    assert_eq!(found.len() as u64, titles);
    let matched = page.text_of("matched")?;
    assert!(
        matched.starts_with("Matched: ") && matched.ends_with('%'),
        "{matched}"
    );
    let picture = kept("pictures")?.join("flame-search.png");
    std::fs::write(&picture, page.browser.screenshot()?)?;
    println!("{}", picture.display());
    // The same words on the picture end the search.
    page.browser.click("#search")?;
    assert_eq!(page.highlighted()?, Vec::<String>::new());
    // And begin it again.
    page.browser.click("#search")?;
    page.browser.answer_prompt("^main \\(")?;
    page.browser.wait_for(SEARCHED, SHOWN)?;
    let found = page.highlighted()?;
    assert!(
        found.len() == 1 && found[0].starts_with("main ("),
        "{found:?}"
    );
    assert_eq!(page.text_of("matched")?, "Matched: 100%");
    Ok(())
}

#[test]
fn a_click_zooms_and_reset_zoom_goes_back() -> Result<()> {
    for arguments in [&[][..], &["--icicle"]] {
        let page = Page::open(arguments)?;
        let all = page.frames()?;
        let visible = "return [...document.querySelectorAll('#frames > g')].filter(g => \
                       !g.classList.contains('hide')).length";
        assert_eq!(page.number(visible)?, all);
        let name = "ngx_http_function_0_1";
        let width = |page: &Page| -> Result<f64> {
            let script = format!("{BY_NAME}.getBoundingClientRect().width");
            let value = page.browser.run(&script, &[json!(name)])?;
            value.as_f64().context("no width")
        };
        let before = width(&page)?;
        page.browser.click_on(BY_NAME, &[json!(name)])?;
        let zoomed = "return !document.getElementById('unzoom').classList.contains('hide')";
        page.browser.wait_for(zoomed, SHOWN)?;
        let after = width(&page)?;
        let whole = page.browser.run(
            "return document.getElementById('frames').getBoundingClientRect().width",
            &[],
        )?;
        let whole = whole.as_f64().context("no width")?;
        assert!(
            after > before * 1.5 && after > whole * 0.95,
            "{before} to {after} of {whole}"
        );
        let left = page.number(visible)?;
        assert!(left < all && left > 3, "{left} of {all}");
        // What is hidden does not stand below the frame.
        let shown = format!(
            "const r = (() => {{ {BY_NAME} }})().attributes; \
             const x = +r['fg:x'].value, w = +r['fg:w'].value; \
             return [...document.querySelectorAll('#frames > g:not(.hide):not(.parent) > rect, \
             #frames > g:not(.hide):not(.parent) a > rect')].every(o => \
             +o.attributes['fg:x'].value >= x && \
             +o.attributes['fg:x'].value + +o.attributes['fg:w'].value <= x + w)"
        );
        assert_eq!(page.browser.run(&shown, &[json!(name)])?, Value::Bool(true));
        page.browser.click("#unzoom")?;
        assert_eq!(page.number(visible)?, all);
        let again = width(&page)?;
        assert!((again - before).abs() < 1.0, "{before}, then {again}");
    }
    Ok(())
}
