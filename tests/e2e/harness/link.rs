//! Links: what is set is what UDP and TCP see.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fleetflame_tests::{Conditions, Direction, Link, LinkConditions, NetNamespace};

use crate::{SECOND, within};

const MS: Duration = Duration::from_millis(1);
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

/// Two namespaces and the link between them.
struct Pair {
    link: Link,
    a: NetNamespace,
    b: NetNamespace,
}

impl Pair {
    fn new(conditions: LinkConditions) -> Result<Self> {
        let (a, b) = (NetNamespace::new("a")?, NetNamespace::new("b")?);
        Ok(Self {
            link: Link::between(&a, A, &b, B, conditions)?,
            a,
            b,
        })
    }

    /// A UDP socket on each side, each connected to the other.
    fn udp(&self) -> Result<(UdpSocket, UdpSocket)> {
        let a = self.a.enter(|| UdpSocket::bind((A, 7000)))?;
        let b = self.b.enter(|| UdpSocket::bind((B, 7000)))?;
        a.connect((B, 7000))?;
        b.connect((A, 7000))?;
        for socket in [&a, &b] {
            socket.set_read_timeout(Some(2 * SECOND))?;
        }
        Ok((a, b))
    }

    /// A TCP connection: the side that connected (in a) and the side that accepted (in b).
    fn tcp(&self) -> Result<(TcpStream, TcpStream)> {
        let listener = self.b.enter(|| TcpListener::bind((B, 7001)))?;
        let connected = self.a.enter(|| connect(7001, 5 * SECOND))?;
        Ok((connected, listener.accept()?.0))
    }
}

fn connect(port: u16, deadline: Duration) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((B, port)), deadline)
}

/// The shortest times that packets take there and back: both ends are in this process, on one clock.
fn one_way_times(a: &UdpSocket, b: &UdpSocket) -> Result<(Duration, Duration)> {
    let fastest = |from: &UdpSocket, to: &UdpSocket| -> Result<Duration> {
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let start = Instant::now();
            from.send(b"ping")?;
            to.recv(&mut [0; 16])?;
            best = best.min(start.elapsed());
        }
        Ok(best)
    };
    Ok((fastest(a, b)?, fastest(b, a)?))
}

/// The numbers of `count` UDP packets from a to b, in the order of their arrival.
fn arrivals(pair: &Pair, count: u32) -> Result<Vec<u32>> {
    let (a, b) = pair.udp()?;
    b.set_read_timeout(Some(SECOND / 2))?;
    // Read while they come: a socket's buffer holds about 250 small packets.
    let receiver = thread::spawn(move || {
        let (mut numbers, mut bytes) = (Vec::new(), [0; 4]);
        while b.recv(&mut bytes).is_ok() {
            numbers.push(u32::from_be_bytes(bytes));
        }
        numbers
    });
    for number in 0..count {
        a.send(&number.to_be_bytes())?;
        if number % 20 == 19 {
            thread::sleep(MS);
        }
    }
    Ok(receiver.join().expect("the receiver"))
}

#[test]
fn each_way_has_its_own_delay_and_it_can_change() -> Result<()> {
    let pair = Pair::new(LinkConditions::delays(80 * MS, 20 * MS))?;
    let (a, b) = pair.udp()?;
    let (there, back) = one_way_times(&a, &b)?;
    println!("80 ms there: {there:?}; 20 ms back: {back:?}");
    assert!((80 * MS..110 * MS).contains(&there), "there: {there:?}");
    assert!((20 * MS..50 * MS).contains(&back), "back: {back:?}");

    pair.link
        .change_both(|conditions| conditions.delay = Duration::ZERO);
    let (there, back) = one_way_times(&a, &b)?;
    println!("no delay there: {there:?}, back: {back:?}");
    for direction in Direction::BOTH {
        assert_eq!(pair.link.counters(direction).delivered, 20, "{direction:?}");
    }
    assert!(there + back < 15 * MS, "there {there:?}, back {back:?}");
    Ok(())
}

#[test]
fn a_tcp_round_trip_takes_at_least_the_delay_of_both_ways() -> Result<()> {
    let pair = Pair::new(LinkConditions::delays(40 * MS, 15 * MS))?;
    let start = Instant::now();
    let (mut a, mut b) = pair.tcp()?;
    let connecting = start.elapsed();
    // SYN there, SYN-ACK back, ACK there: then the other side has accepted.
    assert!(
        (95 * MS..300 * MS).contains(&connecting),
        "connecting took {connecting:?}"
    );
    let start = Instant::now();
    a.write_all(b"ping")?;
    b.read_exact(&mut [0; 4])?;
    b.write_all(b"pong")?;
    a.read_exact(&mut [0; 4])?;
    let round_trip = start.elapsed();
    println!("connecting {connecting:?}, round trip {round_trip:?} with 40 + 15 ms");
    assert!(
        (55 * MS..250 * MS).contains(&round_trip),
        "a round trip took {round_trip:?}"
    );
    Ok(())
}

#[test]
fn a_cut_stalls_a_tcp_stream_without_an_error_and_healing_continues_it() -> Result<()> {
    let pair = Pair::new(LinkConditions::delays(MS, MS))?;
    let (mut a, mut b) = pair.tcp()?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let (sent, in_order) = thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| -> Result<u64> {
            let mut number = 0u64;
            while !stop.load(Ordering::Relaxed) {
                a.write_all(&number.to_be_bytes())?;
                number += 1;
                thread::sleep(MS);
            }
            drop(a);
            Ok(number)
        });
        let receiver = scope.spawn(|| {
            let (mut bytes, mut expected) = ([0; 8], 0);
            while b.read_exact(&mut bytes).is_ok() && u64::from_be_bytes(bytes) == expected {
                expected += 1;
                received.store(expected, Ordering::Relaxed);
            }
            expected
        });
        thread::sleep(SECOND / 2);
        pair.link.cut();
        thread::sleep(50 * MS);
        let at_cut = received.load(Ordering::Relaxed);
        thread::sleep(950 * MS);
        let before_healing = received.load(Ordering::Relaxed);
        pair.link.heal();
        let healed = Instant::now();
        let flows = within(5 * SECOND, || {
            received.load(Ordering::Relaxed) > before_healing + 100
        });
        println!("flows again {:?} after healing", healed.elapsed());
        stop.store(true, Ordering::Relaxed);
        assert!(at_cut > 50, "only {at_cut} numbers came before the cut");
        assert_eq!(at_cut, before_healing, "numbers came through a cut link");
        assert!(flows, "the stream did not go on after healing");
        Ok((
            sender.join().expect("the sender")?,
            receiver.join().expect("the receiver"),
        ))
    })?;
    assert_eq!(sent, in_order);
    assert!(pair.link.counters(Direction::AToB).cut > 0);
    Ok(())
}

#[test]
fn connecting_over_a_cut_link_times_out_and_is_not_refused() -> Result<()> {
    let pair = Pair::new(LinkConditions::default())?;
    let refused = pair.a.enter(|| connect(7009, SECOND));
    assert_eq!(
        refused.expect_err("no listener").kind(),
        ErrorKind::ConnectionRefused
    );
    pair.link.cut();
    let lost = pair.a.enter(|| connect(7009, SECOND / 2));
    assert_eq!(lost.expect_err("a cut link").kind(), ErrorKind::TimedOut);
    Ok(())
}

#[test]
fn one_way_can_be_cut_alone() -> Result<()> {
    let pair = Pair::new(LinkConditions::default())?;
    let (a, b) = pair.udp()?;
    pair.link
        .change(Direction::BToA, |conditions| conditions.cut = true);
    a.send(b"there")?;
    assert_eq!(b.recv(&mut [0; 16])?, 5);
    a.set_read_timeout(Some(SECOND / 5))?;
    b.send(b"back")?;
    assert_eq!(
        a.recv(&mut [0; 16]).expect_err("cut").kind(),
        ErrorKind::WouldBlock
    );
    Ok(())
}

#[test]
fn bandwidth_is_capped() -> Result<()> {
    const BYTES_PER_S: u64 = 2_000_000;
    let narrow = Conditions {
        bytes_per_s: Some(BYTES_PER_S),
        delay: 2 * MS,
        ..Conditions::default()
    };
    let pair = Pair::new(LinkConditions::alike(narrow))?;
    let (mut a, mut b) = pair.tcp()?;
    let stop = AtomicBool::new(false);
    let rate = thread::scope(|scope| -> Result<f64> {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                a.write_all(&[7; 16 << 10])?;
            }
            a.shutdown(Shutdown::Write)
        });
        let mut buffer = vec![0; 64 << 10];
        let mut read_for = |time: Duration| -> Result<f64> {
            let (start, mut bytes) = (Instant::now(), 0);
            while start.elapsed() < time {
                bytes += b.read(&mut buffer)?;
            }
            Ok(bytes as f64 / start.elapsed().as_secs_f64())
        };
        read_for(SECOND / 2)?;
        let rate = read_for(2 * SECOND)?;
        stop.store(true, Ordering::Relaxed);
        while b.read(&mut buffer)? > 0 {}
        Ok(rate)
    })?;
    let share = rate / BYTES_PER_S as f64;
    println!("{rate:.0} bytes/s of {BYTES_PER_S}");
    // Headers take 3.5 %.
    assert!(
        (0.75..=1.02).contains(&share),
        "{rate} bytes/s at a limit of {BYTES_PER_S}"
    );
    Ok(())
}

#[test]
fn drops_follow_the_seed() -> Result<()> {
    let lossy = LinkConditions::alike(Conditions {
        drop: 0.3,
        ..Conditions::default()
    });
    let first = Pair::new(lossy.seeded(11))?;
    let arrived = arrivals(&first, 1000)?;
    let counters = first.link.counters(Direction::AToB);
    println!("{} of 1000 arrived at a drop rate of 0.3", arrived.len());
    assert!(
        (630..=770).contains(&arrived.len()),
        "{} arrived",
        arrived.len()
    );
    assert_eq!(
        (counters.entered, counters.dropped),
        (1000, 1000 - arrived.len() as u64)
    );
    assert_eq!(counters.delivered, arrived.len() as u64);
    drop(first);

    assert_eq!(
        arrivals(&Pair::new(lossy.seeded(11))?, 1000)?,
        arrived,
        "the same seed"
    );
    assert_ne!(
        arrivals(&Pair::new(lossy.seeded(12))?, 1000)?,
        arrived,
        "another seed"
    );
    Ok(())
}

#[test]
fn packets_are_doubled_and_overtaken() -> Result<()> {
    let doubled = Conditions {
        duplicate: 0.2,
        ..Conditions::default()
    };
    let pair = Pair::new(LinkConditions::alike(doubled))?;
    let arrived = arrivals(&pair, 500)?;
    let copies = pair.link.counters(Direction::AToB).duplicated;
    assert!((60..=140).contains(&copies), "{copies} copies");
    assert_eq!(arrived.len() as u64, 500 + copies);
    drop(pair);

    let mixed = Conditions {
        reorder: 0.1,
        ..Conditions::default()
    };
    let arrived = arrivals(&Pair::new(LinkConditions::alike(mixed))?, 500)?;
    assert_eq!(arrived.len(), 500);
    assert!(!arrived.is_sorted());
    Ok(())
}

#[test]
fn an_unimpaired_link_is_fast_enough_for_real_traffic() -> Result<()> {
    const BYTES: usize = 64 << 20;
    let pair = Pair::new(LinkConditions::default())?;
    let (mut a, mut b) = pair.tcp()?;
    let start = Instant::now();
    let received = thread::scope(|scope| -> Result<usize> {
        scope.spawn(move || {
            let chunk = vec![1; 64 << 10];
            (0..BYTES / chunk.len()).try_for_each(|_| a.write_all(&chunk))
        });
        let (mut buffer, mut received) = (vec![0; 64 << 10], 0);
        while let n @ 1.. = b.read(&mut buffer)? {
            received += n;
        }
        Ok(received)
    })?;
    let rate = BYTES as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s");
    assert_eq!(received, BYTES);
    assert!(rate > 20.0, "only {rate:.0} MB/s");
    Ok(())
}

#[test]
fn ipv6_works_as_well() -> Result<()> {
    let (a, b) = (NetNamespace::new("a6")?, NetNamespace::new("b6")?);
    let (address_a, address_b) = ("fd77::1".parse()?, "fd77::2".parse::<IpAddr>()?);
    let link = Link::between(&a, address_a, &b, address_b, LinkConditions::default())?;
    let listener = b.enter(|| TcpListener::bind((address_b, 7001)))?;
    let to = listener.local_addr()?;
    let start = Instant::now();
    let connected = a.enter(|| TcpStream::connect_timeout(&to, 5 * SECOND));
    println!("connecting over IPv6: {:?}", start.elapsed());
    connected.with_context(|| format!("{:?}", Direction::BOTH.map(|way| link.counters(way))))?;
    assert!(link.counters(Direction::AToB).delivered > 0);
    Ok(())
}

#[test]
fn dropping_a_link_removes_its_devices() -> Result<()> {
    let pair = Pair::new(LinkConditions::default())?;
    assert!(pair.a.ip(&["-o", "link"])?.contains("to-77.0.2"));
    let Pair { link, a, b } = pair;
    drop(link);
    for namespace in [&a, &b] {
        let links = namespace.ip(&["-o", "link"])?;
        assert_eq!(links.lines().count(), 1, "{links}");
    }
    let error = a.enter(|| connect(7001, SECOND)).expect_err("no link");
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    Ok(())
}

#[test]
fn a_namespace_may_go_before_its_link() -> Result<()> {
    let Pair { link, a, b } = Pair::new(LinkConditions::default())?;
    drop((a, b));
    drop(link);
    Ok(())
}
