//! Whether a browser opens the pictures: headless Chromium, navigation to load event.
//!
//! In: default pictures of the largest inputs. Out: seconds until the load event. Never: a network but
//! the loopback, or a profile folder of the user's.

use crate::args;
use crate::inputs::Kind;
use crate::setting::Setting;
use crate::table::Goal;
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PART: &str = "browser";
/// Longest answer of the driver that is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(60);

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Measures and reports.
pub fn measure(setting: &mut Setting) -> anyhow::Result<()> {
    for kind in [Kind::StapDbg, Kind::StapDup, Kind::StapUniq, Kind::PerfUniq] {
        setting.attempt(PART, kind.word(), |s| picture(s, kind));
    }
    Ok(())
}

fn picture(setting: &mut Setting, kind: Kind) -> anyhow::Result<()> {
    let what = format!("default picture of {} of {}", setting.size(), kind.word());
    let chromium = setting.peers.on_path("chromium", "chromium");
    let driver = setting.peers.on_path("chromedriver", "chromium-driver");
    let both = chromium.and_then(|c| Ok((c, driver?)));
    let Some((chromium, driver)) = setting.peer(PART, &what, both) else {
        return Ok(());
    };
    let (input, _) = setting.text(kind)?;
    let job = setting.fleetflame("browser.svg", args!["flame", "--quiet", &input])?;
    setting.step(&what);
    job.run()?;
    let mut load_s = Vec::new();
    for round in 1..=setting.arguments.pairs {
        setting.step(format!(
            "{what}: round {round} of {}",
            setting.arguments.pairs
        ));
        let driver = Driver::start(&driver)?;
        load_s.push(driver.load_s(&chromium, job.output())?);
    }
    let bytes = std::fs::metadata(job.output())?.len();
    let what = format!("{what} ({bytes} bytes), navigation to load event in headless Chromium");
    let goal = Some(Goal::at_most(1.5));
    setting.report.row(PART, what, "s", &load_s, &[], goal);
    Ok(())
}

/// A running chromedriver; it ends with this value, and its browser with it.
struct Driver {
    child: Child,
    port: u16,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Driver {
    fn start(program: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting chromedriver")?;
        let stdout = child.stdout.take().context("no stdout of chromedriver")?;
        let mut driver = Self { child, port: 0 };
        // `ChromeDriver was started successfully on port 41234.`
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some((_, port)) = line.split_once("successfully on port ") {
                driver.port = port.trim_end_matches('.').parse().context(line)?;
                return Ok(driver);
            }
        }
        bail!("chromedriver did not say its port")
    }

    /// Opens a file in a browser of its own; seconds from navigation to the end of the load event.
    fn load_s(&self, chromium: &Path, svg: &Path) -> anyhow::Result<f64> {
        let profile = tempfile::tempdir()?;
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": chromium, "args": flags },
        } } });
        let session = self.ask("POST", "/session", &wanted)?;
        let id = session["sessionId"].as_str().context("no session id")?;
        let about = std::path::absolute(svg)?;
        let page = json!({ "url": format!("file://{}", about.display()) });
        let timing = json!({ "args": [], "script":
            "const t = performance.timing; return [t.loadEventEnd - t.navigationStart, document.querySelectorAll('rect').length];" });
        let found = self
            .ask("POST", &format!("/session/{id}/url"), &page)
            .and_then(|_| self.ask("POST", &format!("/session/{id}/execute/sync"), &timing));
        let closed = self.ask("DELETE", &format!("/session/{id}"), &Value::Null);
        let found = found?;
        closed?;
        let milliseconds = found[0].as_f64().context("no load time")?;
        let rectangles = found[1].as_u64().unwrap_or(0);
        ensure!(
            milliseconds > 0.0 && rectangles > 1,
            "the page did not load: {found}"
        );
        Ok(milliseconds / 1_000.0)
    }

    /// One request of W3C WebDriver, and the value that it is answered with.
    fn ask(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut link = TcpStream::connect(("127.0.0.1", self.port))?;
        link.set_read_timeout(Some(ANSWER_MAX))?;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        write!(
            link,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        // The driver may leave the connection open: its answer ends where its length says.
        let mut answer = BufReader::new(link);
        let mut length = 0;
        loop {
            let mut line = String::new();
            let read = answer.read_line(&mut line);
            read.with_context(|| format!("chromedriver's answer to {path}"))?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes
                    .trim()
                    .parse()
                    .context("chromedriver's Content-Length")?;
            }
            if line.is_empty() {
                break;
            }
        }
        ensure!(
            length <= ANSWER_BYTES_MAX,
            "chromedriver answers with {length} bytes"
        );
        let mut text = vec![0; length];
        let read = answer.read_exact(&mut text);
        read.with_context(|| format!("chromedriver's answer to {path}"))?;
        let text = String::from_utf8_lossy(&text);
        let document: Value = serde_json::from_str(text.trim())
            .with_context(|| format!("chromedriver's answer to {path}: {text:.300}"))?;
        let value = document["value"].clone();
        if let Some(error) = value["error"].as_str() {
            bail!("chromedriver: {error}: {}", value["message"]);
        }
        Ok(value)
    }
}
