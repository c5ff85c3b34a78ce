//! Faults: stores that are down, late or refuse, connections that break. In: one fault or two. Out: every host exactly once
//! afterwards, or a clear refusal after one attempt. Never: a time that is asserted.

use crate::store::{ALL, Fault, Knows, StoreServer};
use crate::{HOSTS, assert_each_host_once, push_to};
use fleetflame::push::Ledger;

/// Whether it goes by gRPC to each store, and by `/ingest`.
fn ways() -> [(&'static str, Knows); 3] {
    let old = Knows {
        http2: false,
        ..ALL
    };
    [("pyroscope", ALL), ("parca", ALL), ("pyroscope", old)]
}

#[test]
fn a_store_that_is_down_twice_gets_everything_once() {
    for (kind, knows) in ways() {
        let faults = vec![Fault::Unavailable; 2];
        let server = StoreServer::start_with(knows, faults, None, None);
        let (outcome, _) = push_to(&server, kind, &mut Ledger::default());
        assert_eq!(outcome.failed, vec![], "{kind} {knows:?}");
        assert_eq!((server.requests(), server.taken().len()), (5, 3));
        assert_each_host_once(&server.taken());
    }
}

#[test]
fn an_answer_that_never_comes_is_not_waited_for_and_makes_no_second_profile() {
    for (kind, knows) in ways() {
        let server = StoreServer::start_with(knows, vec![Fault::Silent], None, None);
        let (outcome, _) = push_to(&server, kind, &mut Ledger::default());
        assert_eq!(outcome.failed, vec![], "{kind} {knows:?}");
        assert_eq!(
            server.taken().len(),
            4,
            "taken before it fell silent, and again"
        );
        assert_each_host_once(&server.taken());
    }
}

#[test]
fn a_connection_that_is_reset_instead_of_an_answer_makes_no_second_profile() {
    for (kind, knows) in ways() {
        let server = StoreServer::start_with(knows, vec![Fault::Reset], None, None);
        let (outcome, _) = push_to(&server, kind, &mut Ledger::default());
        assert_eq!(outcome.failed, vec![], "{kind} {knows:?}");
        assert_eq!(server.taken().len(), 4);
        assert_each_host_once(&server.taken());
    }
}

#[test]
fn a_connection_that_is_reset_in_the_middle_of_a_profile_is_opened_again() {
    for (kind, knows) in ways() {
        let server = StoreServer::start_with(knows, vec![], Some(500), None);
        let (outcome, _) = push_to(&server, kind, &mut Ledger::default());
        assert_eq!(outcome.failed, vec![], "{kind} {knows:?}");
        assert_eq!(server.taken().len(), 3, "half a profile is none");
        assert_each_host_once(&server.taken());
    }
}

#[test]
fn what_is_refused_is_not_tried_again_and_the_others_still_come() {
    for (kind, knows) in ways() {
        let server = StoreServer::start_with(knows, vec![Fault::Invalid], None, None);
        let mut ledger = Ledger::default();
        let (outcome, _) = push_to(&server, kind, &mut ledger);
        assert_eq!(outcome.sent, HOSTS[1..], "{kind} {knows:?}");
        assert_eq!((outcome.failed.len(), server.requests()), (1, 3));
        let said = &outcome.failed[0].said;
        assert!(said.contains("a label is wrong"), "{said}");
        // The next time only what is missing is sent.
        let (outcome, _) = push_to(&server, kind, &mut ledger);
        assert_eq!(
            (outcome.sent, outcome.already.len()),
            (vec![HOSTS[0].to_owned()], 2)
        );
        assert_eq!((server.requests(), server.taken().len()), (4, 3));
        assert_each_host_once(&server.taken());
    }
}

#[test]
fn a_store_that_does_not_know_us_is_asked_once() {
    for (kind, knows) in ways() {
        let faults = vec![Fault::Unauthenticated; 3];
        let server = StoreServer::start_with(knows, faults, None, None);
        let (outcome, _) = push_to(&server, kind, &mut Ledger::default());
        assert_eq!(
            (outcome.failed.len(), server.requests()),
            (3, 1),
            "{kind} {knows:?}"
        );
        assert!(outcome.failed[0].remedy.contains("FLEETFLAME_PUSH_AUTH"));
        assert!(
            outcome.failed[1]
                .said
                .contains("not tried, since kong-1 failed")
        );
    }
}

#[test]
fn a_store_that_stays_down_ends_it_after_the_attempts_that_are_allowed() {
    let faults = vec![Fault::Unavailable; 20];
    let server = StoreServer::start_with(ALL, faults, None, None);
    let (outcome, _) = push_to(&server, "pyroscope", &mut Ledger::default());
    assert_eq!((outcome.failed.len(), server.requests()), (3, 4));
    assert!(
        outcome.failed[0].said.contains("(tried 4 times)"),
        "{:?}",
        outcome.failed
    );
    assert!(server.taken().is_empty());
}
