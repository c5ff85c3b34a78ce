//! A real browser: headless Chromium, driven through chromedriver.
//!
//! In: a folder of files to show. Out: an open page that can be asked, clicked and photographed.
//! Never: traffic to anything but loopback, or a profile folder that outlives the test.
//!
//! chromedriver speaks WebDriver (<https://www.w3.org/TR/webdriver2/>), which is JSON over HTTP/1.1.
//! Tests need a dozen of its commands, one after the other, so a blocking client of our own does;
//! the client crates bring an async HTTP stack with them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::Child;
use crate::requirements;

/// No crash reports, no updates, no sandbox (tests run as root), nothing to the outside.
///
/// There is no graphics processor, and newer browsers give a page WebGL in software only when asked: speedscope draws with
/// it, and shows nothing without.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--window-size=1400,900",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];
/// A cold start on a machine that builds beside it takes some ten seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The key under which WebDriver puts the id of an element (web element identifier, 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A dialog that a page opens is the test's to answer.
const LEAVE_DIALOGS: &str = "ignore";

/// An open browser. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    address: SocketAddr,
    session: String,
    driver: Child,
    /// The browser's profile and everything else that it writes.
    dir: tempfile::TempDir,
}

impl Browser {
    /// Starts chromedriver and a browser with a fresh profile.
    pub fn start() -> Result<Self> {
        let chromium = requirements::command("chromium")?;
        let chromedriver = requirements::command("chromedriver")?;
        let dir = tempfile::Builder::new()
            .prefix("fleetflame-browser-")
            .tempdir()?;
        let mut command = Command::new(chromedriver);
        command
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .env("HOME", dir.path())
            .env("TMPDIR", dir.path());
        let mut driver = Child::spawn(command)?;
        let said = driver.wait_for_stdout("started successfully on port", START_DEADLINE)?;
        let port = said.rsplit(' ').next().map(|p| p.trim_end_matches('.'));
        let port = port.and_then(|p| p.parse().ok());
        let port = port.with_context(|| format!("no port in {said:?}"))?;
        let mut browser = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            session: String::new(),
            driver,
            dir,
        };
        let profile = format!("--user-data-dir={}", browser.dir.path().display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "unhandledPromptBehavior": LEAVE_DIALOGS,
            "goog:chromeOptions": {"binary": chromium, "args": flags},
        }}});
        let value = browser.call("POST", "/session", &wanted)?;
        let session = value["sessionId"].as_str().context("no session")?;
        browser.session = session.to_owned();
        Ok(browser)
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("url", &json!({"url": url})).map(drop)
    }

    /// What a function body returns that runs in the page; `arguments` are its arguments.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.command(
            "execute/sync",
            &json!({"script": script, "args": arguments}),
        )
    }

    /// Waits until a script returns something true, and gives that.
    pub fn wait_for(&self, script: &str, deadline: Duration) -> Result<Value> {
        let end = Instant::now() + deadline;
        loop {
            let value = self.run(script, &[])?;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return Ok(value);
            }
            ensure!(
                Instant::now() < end,
                "not true within {deadline:?}: {script}"
            );
            thread::sleep(POLL);
        }
    }

    /// Clicks as a person does, on what a CSS selector finds first.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.find("css selector", selector)?;
        self.command(&format!("element/{element}/click"), &json!({}))
            .map(drop)
    }

    /// Clicks on what a script returns: an element.
    pub fn click_on(&self, script: &str, arguments: &[Value]) -> Result<()> {
        let found = self.run(script, arguments)?;
        let element = found[ELEMENT]
            .as_str()
            .with_context(|| format!("no element but {found}: {script}"))?;
        self.command(&format!("element/{element}/click"), &json!({}))
            .map(drop)
    }

    fn find(&self, using: &str, value: &str) -> Result<String> {
        let found = self.command("element", &json!({"using": using, "value": value}))?;
        let element = found[ELEMENT].as_str();
        Ok(element.context("no element")?.to_owned())
    }

    /// Presses a key together with Control.
    pub fn control_and(&self, key: &str) -> Result<()> {
        // Key codes of WebDriver, 17.4.2: E009 is Control.
        let down = |value: &str| json!({"type": "keyDown", "value": value});
        let up = |value: &str| json!({"type": "keyUp", "value": value});
        let actions = [down("\u{e009}"), down(key), up(key), up("\u{e009}")];
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.command("actions", &json!({"actions": [keyboard]}))
            .map(drop)
    }

    /// Answers the prompt that a page has opened, with a text and "OK".
    pub fn answer_prompt(&self, text: &str) -> Result<()> {
        let end = Instant::now() + ANSWER_DEADLINE;
        while let Err(error) = self.command("alert/text", &json!({"text": text})) {
            if Instant::now() >= end {
                return Err(error.context("no prompt"));
            }
            thread::sleep(POLL);
        }
        self.command("alert/accept", &json!({})).map(drop)
    }

    /// What the page looks like, as PNG.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let path = format!("/session/{}/screenshot", self.session);
        let value = self.call("GET", &path, &Value::Null)?;
        base64(value.as_str().context("no picture")?)
    }

    fn command(&self, name: &str, body: &Value) -> Result<Value> {
        let path = format!("/session/{}/{name}", self.session);
        self.call("POST", &path, body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_DEADLINE)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let answer = read_answer(&mut stream)
            .with_context(|| format!("{method} {path}; chromedriver: {}", self.driver.stderr()))?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        let value = answer["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{method} {path}: {error}: {}", value["message"]);
        }
        Ok(value)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call(
            "DELETE",
            &format!("/session/{}", self.session),
            &Value::Null,
        );
    }
}

/// The body of an answer; chromedriver says how long it is and may keep the connection open.
fn read_answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        if let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let len = text.lines().find_map(|l| l.strip_prefix("content-length:"));
            let len: usize = len.context("no length")?.trim().parse()?;
            if bytes.len() >= head + 4 + len {
                return Ok(bytes[head + 4..head + 4 + len].to_vec());
            }
        }
        let got = stream.read(&mut piece)?;
        ensure!(got > 0, "the answer ends early");
        bytes.extend_from_slice(&piece[..got]);
    }
}

/// RFC 4648, section 4: screenshots come so.
fn base64(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes().filter(|b| *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("a picture has the character {byte:#x}"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Ok(out)
}

/// A web server on loopback for the files of some folders. It ends with the test.
#[derive(Debug)]
pub struct Files {
    address: SocketAddr,
}

impl Files {
    /// Serves `/NAME/…` from the folder of that name.
    pub fn serve(folders: &[(&str, &Path)]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let folders: BTreeMap<String, PathBuf> = folders
            .iter()
            .map(|(name, folder)| ((*name).to_owned(), (*folder).to_owned()))
            .collect();
        // Ends with the process: a test binary has no other way out of `accept`.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let folders = folders.clone();
                thread::spawn(move || answer(stream, &folders));
            }
        });
        Ok(Self { address })
    }

    /// The address of a file: `NAME/FILE`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn answer(mut stream: TcpStream, folders: &BTreeMap<String, PathBuf>) -> Result<()> {
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 64 << 10 {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let folder = parts.next().and_then(|name| folders.get(name));
    let file = parts.next().filter(|f| !f.split('/').any(|p| p == ".."));
    let found = folder.zip(file).map(|(folder, file)| folder.join(file));
    let content = found.as_ref().and_then(|f| std::fs::read(f).ok());
    let (status, body) = content.map_or(("404 Not Found", Vec::new()), |b| ("200 OK", b));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content_type(path),
        body.len()
    )?;
    Ok(stream.write_all(&body)?)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
