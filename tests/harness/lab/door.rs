//! `lab-door`: runs in a guest and does what the harness says.
//!
//! In: connections, one for each command (see `wire.rs`). Out: the command's output, its end. Never: a
//! command that outlives its connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

mod wire;

use wire::Frame;

const PORT: u16 = 7000;
/// After the end of a command, how long its last output is waited for: a child of its own may hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    writeln!(io::stdout(), "lab: the door is open")?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                let _ = writeln!(io::stderr(), "lab-door: {error}");
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

/// One command from its first argument to its end.
fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut incoming = stream.try_clone()?;
    let outgoing = Arc::new(Mutex::new(stream.try_clone()?));
    let Some(mut command) = read_command(&mut incoming)? else {
        return Ok(());
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return send(&outgoing, wire::FAILED, error.to_string().as_bytes()),
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    send(&outgoing, wire::STARTED, &pid.as_raw().to_le_bytes())?;
    let (closed, both_closed) = mpsc::channel();
    pump(child.stdout.take(), wire::OUTPUT, &outgoing, closed.clone());
    pump(child.stderr.take(), wire::ERRORS, &outgoing, closed);
    // A process that was waited for has no number any more; nothing may be sent to it then.
    let running = Arc::new(Mutex::new(Some(pid)));
    let (stdin, obeyed) = (child.stdin.take(), Arc::clone(&running));
    thread::spawn(move || obey(&mut incoming, stdin, &obeyed));
    let status = wait(&mut child, &running)?;
    // Nothing is ever sent: the channel closes when both streams have ended.
    let _ = both_closed.recv_timeout(LAST_OUTPUT);
    send(&outgoing, wire::EXITED, &status.to_le_bytes())
}

fn read_command(incoming: &mut impl Read) -> io::Result<Option<Command>> {
    let mut arguments = Vec::new();
    loop {
        let Some(frame) = Frame::read(incoming)? else {
            return Ok(None);
        };
        match frame.kind {
            wire::ARGUMENT => arguments.push(String::from_utf8_lossy(&frame.body).into_owned()),
            wire::GO => break,
            other => return Err(io::Error::other(format!("a frame of kind {other}"))),
        }
    }
    let mut words = arguments.into_iter();
    let program = words.next().ok_or_else(|| io::Error::other("no program"))?;
    let mut command = Command::new(program);
    command
        .args(words)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(Some(command))
}

/// Sends what comes out of a pipe; `closed` is dropped at its end.
fn pump(
    pipe: Option<impl Read + Send + 'static>,
    kind: u8,
    outgoing: &Arc<Mutex<TcpStream>>,
    closed: mpsc::Sender<()>,
) {
    let outgoing = Arc::clone(outgoing);
    let Some(mut pipe) = pipe else {
        return;
    };
    thread::spawn(move || {
        let _closed = closed;
        let mut chunk = vec![0; wire::BODY_MAX];
        loop {
            match pipe.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) if n > 0 => {
                    if send(&outgoing, kind, chunk.get(..n).unwrap_or_default()).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
    });
}

/// Input and signals, until the connection ends; then a command that still runs is killed.
fn obey(incoming: &mut TcpStream, mut stdin: Option<ChildStdin>, running: &Mutex<Option<Pid>>) {
    while let Ok(Some(frame)) = Frame::read(incoming) {
        match frame.kind {
            wire::INPUT => {
                // A command that reads no further is none of the harness's troubles.
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&frame.body).is_err()
                {
                    stdin = None;
                }
            }
            wire::INPUT_END => stdin = None,
            wire::SIGNAL => {
                let signal = frame
                    .number()
                    .and_then(|number| Signal::try_from(number).ok());
                if let (Some(pid), Some(signal)) = (*lock(running), signal) {
                    let _ = kill(pid, signal);
                }
            }
            _ => break,
        }
    }
    if let Some(pid) = *lock(running) {
        let _ = killpg(pid, Signal::SIGKILL);
    }
}

/// Waits without taking the process's number away from under a signal: it is taken in steps.
fn wait(child: &mut Child, running: &Mutex<Option<Pid>>) -> io::Result<i32> {
    loop {
        {
            let mut pid = lock(running);
            if let Some(status) = child.try_wait()? {
                *pid = None;
                return Ok(status.into_raw());
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn send(outgoing: &Mutex<TcpStream>, kind: u8, body: &[u8]) -> io::Result<()> {
    wire::write(&mut *lock(outgoing), kind, body)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
