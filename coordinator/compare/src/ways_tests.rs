//! A function that is reached by several ways is named although no single way carries the difference.

use super::tests::add_host;
use super::{Per, rank};
use model::profile::Profile;

/// A request is answered at once, or when a timer wakes it: the plugin is called on both ways.
const USUAL: &[(&str, u64)] = &[
    ("main;events;accept;handler;access;plugin;mix", 14),
    ("main;events;timers;access;plugin;mix", 6),
    ("main;events;accept;handler;access;route", 40),
    ("main;events;timers;access;route", 40),
];
const SLOW: &[(&str, u64)] = &[
    ("main;events;accept;handler;access;plugin;mix", 140),
    ("main;events;timers;access;plugin;mix", 60),
    ("main;events;accept;handler;access;route", 40),
    ("main;events;timers;access;route", 40),
];

fn fleet(hosts: usize, slow: &[(&str, u64)], usual: &[(&str, u64)]) -> Profile {
    let mut profile = Profile::default();
    for number in 0..hosts {
        let stacks = if number == 1 { slow } else { usual };
        add_host(&mut profile, &format!("host-{number}"), stacks, 100, 0);
    }
    profile
}

#[test]
fn a_function_is_named_that_two_ways_lead_to() {
    for hosts in [3, 8] {
        let ranking = rank(&fleet(hosts, SLOW, USUAL), Per::Share, 1);
        let first = &ranking.entries[0];
        assert_eq!(first.host, "host-1");
        assert_eq!(first.frame.as_deref(), Some("mix"), "{first:#?}");
        let place = &first.places[0];
        assert_eq!(place.ways, 2);
        assert!(
            place
                .path
                .join(";")
                .ends_with("accept;handler;access;plugin;mix")
        );
        // Both ways together: 200 of 280 against 20 of 100.
        assert!((first.delta_points - 51.4).abs() < 4.0, "{first:#?}");
        assert!(
            (place.gap.delta - first.delta_points).abs() < 4.0,
            "{place:#?}"
        );
        assert!(place.gap.low > 40.0 && place.gap.high < 62.0, "{place:#?}");
    }
}

#[test]
fn what_differs_in_several_functions_is_the_one_that_calls_them_all() {
    let slow: Vec<(&str, u64)> = USUAL
        .iter()
        .map(|(stack, weight)| (*stack, weight * 3))
        .chain([("main;idle", 100)])
        .collect();
    let usual: Vec<(&str, u64)> = USUAL.iter().copied().chain([("main;idle", 100)]).collect();
    let ranking = rank(&fleet(8, &slow, &usual), Per::Share, 1);
    let first = &ranking.entries[0];
    assert_eq!(first.host, "host-1");
    assert_eq!(first.frame.as_deref(), Some("access"), "{first:#?}");
    assert_eq!(first.places[0].ways, 2);
}
