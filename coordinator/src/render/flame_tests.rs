//! Flame graphs within their bounds, and with everything in them.

use super::*;
use crate::render::view::{Side, ViewBuilder};
use model::format::folded;
use proptest::prelude::*;

/// A look without verdicts.
fn look(left: &str, right: &str, scale: Scale) -> DifferenceLook<'static> {
    DifferenceLook {
        left: left.to_owned(),
        right: right.to_owned(),
        scale,
        told: None,
    }
}

fn view(left: &str, right: &str) -> View {
    let mut builder = ViewBuilder::default();
    builder.add(
        &folded::parse(left.as_bytes(), "l").0,
        |_| true,
        0,
        Side::Left,
    );
    builder.add(
        &folded::parse(right.as_bytes(), "r").0,
        |_| true,
        0,
        Side::Right,
    );
    builder.build()
}

/// (tooltip, fill, x, width) of every frame.
fn frames(svg: &str) -> Vec<(String, String, u64, u64)> {
    let between = |text: &str, a: &str, b: &str| {
        text.split_once(a)
            .and_then(|(_, rest)| rest.split_once(b))
            .unwrap()
            .0
            .to_owned()
    };
    svg.split("<g><title>")
        .skip(1)
        .map(|g| {
            let number = |mark: &str| between(g, mark, "\"").parse().unwrap();
            let title = g.split_once("</title>").unwrap().0.to_owned();
            (
                title,
                between(g, "fill=\"", "\""),
                number("fg:x=\""),
                number("fg:w=\""),
            )
        })
        .collect()
}

fn find<'a>(all: &'a [(String, String, u64, u64)], name: &str) -> &'a (String, String, u64, u64) {
    all.iter()
        .find(|f| f.0.starts_with(name))
        .unwrap_or_else(|| panic!("no {name} in {all:?}"))
}

#[test]
fn tooltips_and_colours_sit_on_the_right_frames() {
    let text = "main;do work 3\nmain;do work;x 12 4\nmain;do work;x_[k] 5\nmain 8\nother 1\n";
    let options = FlameOptions {
        coverage: "2 of 3 hosts, 1.0 % of samples lost".into(),
        ..Default::default()
    };
    for icicle in [false, true] {
        let options = FlameOptions {
            icicle,
            ..options.clone()
        };
        let flame = flame(&view(text, ""), &options).unwrap();
        let all = frames(&flame.svg);
        assert_eq!(all.len(), flame.frames + 1);
        assert_eq!(find(&all, "all").0, "all (21 samples, 100.00%)");
        assert_eq!(find(&all, "main").0, "main (20 samples, 95.24%)");
        assert_eq!(find(&all, "do work").0, "do work (12 samples, 57.14%)");
        assert_eq!(find(&all, "x 12").0, "x 12 (4 samples, 19.05%)");
        assert_eq!(find(&all, "x (").0, "x (kernel, 5 samples, 23.81%)");
        let kernel = kind_of_fill(&find(&all, "x (").1);
        assert!(
            kernel.1 > 150 && kernel.2 < 90,
            "kernel frames are orange: {kernel:?}"
        );
        assert!(
            flame
                .svg
                .contains(">2 of 3 hosts, 1.0 % of samples lost<tspan")
        );
        assert!(flame.svg.contains("NOTES: 2 of 3 hosts"));
    }
}

fn kind_of_fill(fill: &str) -> (u8, u8, u8) {
    let numbers: Vec<u8> = fill
        .trim_start_matches("rgb(")
        .trim_end_matches(')')
        .split(',')
        .map(|n| n.parse().unwrap())
        .collect();
    (numbers[0], numbers[1], numbers[2])
}

#[test]
fn a_difference_shows_what_vanished_and_what_is_new_with_both_shares() {
    let left = "m;same 50\nm;gone;deep 30\nm;less 20\n";
    let right = "m;same 500\nm;new;deep 400\nm;less 100\n";
    let flame = flame_difference(
        &view(left, right),
        &look("before", "after", Scale::Shares),
        &FlameOptions::default(),
    )
    .unwrap();
    let all = frames(&flame.svg);
    let (gone, new, same) = (find(&all, "gone"), find(&all, "new"), find(&all, "same"));
    assert_eq!(
        gone.0,
        "gone (before 30.00%, after 0.00%, -30.00 points, only in before)"
    );
    assert_eq!(
        new.0,
        "new (before 0.00%, after 40.00%, +40.00 points, only in after)"
    );
    assert_eq!(same.0, "same (before 50.00%, after 50.00%, +0.00 points)");
    assert_eq!(
        (gone.3, new.3),
        (300_000_000, 400_000_000),
        "the larger side is the width"
    );
    let (blue, red) = (kind_of_fill(&gone.1), kind_of_fill(&new.1));
    assert!(blue.2 > blue.0 && red.0 > red.2, "{blue:?} {red:?}");
    assert_eq!(kind_of_fill(&same.1), (236, 236, 236));
    assert!(flame.svg.contains("red: more in after than in before"));
}

#[test]
fn whatever_comes_in_the_picture_stays_small() {
    let mut wide = String::new();
    for i in 0..40_000_u64 {
        wide.push_str(&format!(
            "main;{};f{}{} {}\n",
            i % 100,
            "very_long_name".repeat(20),
            i,
            i % 7 + 1
        ));
    }
    let options = FlameOptions {
        width_min: 0.0,
        ..FlameOptions::default()
    };
    let drawn = flame(&view(&wide, ""), &options).unwrap();
    assert!(drawn.svg.len() <= 1_000_000, "{} bytes", drawn.svg.len());
    assert!(
        drawn.frames < 5_000 && drawn.hidden_frames > 35_000,
        "{} {}",
        drawn.frames,
        drawn.hidden_frames
    );
    assert!(
        drawn.frames > 500,
        "it is shrunk no more than needed: {}",
        drawn.frames
    );
    assert!(drawn.svg.contains("narrow frames are not drawn"));
    let deep = format!("{} 1\nleaf 1\n", vec!["f"; 3_000].join(";"));
    let drawn = flame(&view(&deep, ""), &options).unwrap();
    assert!(drawn.depth_capped && drawn.svg.contains("[deeper] ("));
    assert!(drawn.frames <= 202, "{}", drawn.frames);
}

#[test]
fn hostile_names_stay_text() {
    let text = "<script>alert(1)</script>;a&b\"'<g><title>;]]>--\u{85}\u{202e}x\u{ffff} 5\n\u{a0} 1\n# c;d 2\n";
    let options = FlameOptions {
        title: "<script>t</script>".into(),
        coverage: "--><script>c</script>".into(),
        ..FlameOptions::default()
    };
    for svg in [
        flame(&view(text, ""), &options).unwrap().svg,
        flame_difference(
            &view(text, "a 1"),
            &look("<l>", "(r)", Scale::Shares),
            &options,
        )
        .unwrap()
        .svg,
        flame(&view("", ""), &options).unwrap().svg,
    ] {
        assert_eq!(
            svg.matches("<script").count(),
            usize::from(svg.contains("id=\"frames\"")),
            "{svg}"
        );
        let comments_closed = svg
            .split("<!--")
            .skip(1)
            .all(|c| !c.split("-->").next().unwrap().contains("--"));
        assert!(comments_closed);
        assert!(!svg.contains(['\u{85}', '\u{202e}', '\u{ffff}']));
        well_formed(&svg);
    }
}

/// Every tag that opens is closed, and nothing but the five entities stands behind `&`.
fn well_formed(svg: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        for entity in text.split('&').skip(1) {
            let good = ["amp;", "lt;", "gt;", "quot;", "apos;", "#"]
                .iter()
                .any(|e| entity.starts_with(e));
            assert!(good, "&{entity:.20}");
        }
        rest = &rest[at..];
        let end = if rest.starts_with("<![CDATA[") {
            rest.find("]]>").unwrap() + 3
        } else if rest.starts_with("<!--") {
            rest.find("-->").unwrap() + 3
        } else {
            rest.find('>').unwrap() + 1
        };
        let tag = &rest[..end];
        if let Some(name) = tag.strip_prefix("</") {
            assert_eq!(
                open.pop().as_deref(),
                Some(name.trim_end_matches('>').trim())
            );
        } else if !tag.starts_with("<!") && !tag.starts_with("<?") && !tag.ends_with("/>") {
            open.push(tag[1..].split([' ', '>']).next().unwrap().to_owned());
        }
        rest = &rest[end..];
    }
    assert!(open.is_empty(), "{open:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_stacks_give_a_picture_whose_widths_add_up(
        left in prop::collection::vec((prop::collection::vec("[ab #<&0-9 ]{0,3}", 1..5), 0_u64..1_000), 0..20),
        right in prop::collection::vec((prop::collection::vec("[ab #<&0-9 ]{0,3}", 1..5), 0_u64..1_000), 0..20),
        frames_max in 1_usize..40,
    ) {
        let text = |rows: &[(Vec<String>, u64)]| -> String {
            rows.iter().map(|(s, c)| format!("{} {c}\n", s.join(";"))).collect()
        };
        let view = view(&text(&left), &text(&right));
        let options = FlameOptions { frames_max, ..FlameOptions::default() };
        let drawn = flame_difference(&view, &look("l", "r", Scale::Shares), &options).unwrap();
        well_formed(&drawn.svg);
        prop_assert!(drawn.frames < frames_max.max(2));
        if view.difference.left_total > 0 {
            let one = flame(&View { difference: one_side(&view.difference), ..view.clone() }, &options).unwrap();
            let all = frames(&one.svg);
            prop_assert_eq!(find(&all, "all (").3, view.difference.left_total);
            // Every frame carries a tooltip of ours.
            prop_assert!(all.iter().all(|f| f.0.ends_with("%)")), "{:?}", all);
        }
    }

    #[test]
    fn shares_of_each_side_add_up_exactly(values in prop::collection::vec((any::<u64>(), 0_u64..9), 1..30)) {
        let rows: Vec<DiffRow> = (1..)
            .zip(&values)
            .map(|(n, (l, r))| DiffRow { node: model::profile::NodeId(n), left: l / 64, right: *r })
            .collect();
        let sum = |side: fn(&DiffRow) -> u64, rows: &[DiffRow]| rows.iter().map(side).sum::<u64>();
        let counts = Difference { left_total: sum(|r| r.left, &rows), right_total: sum(|r| r.right, &rows), rows };
        let shares = shares(&counts);
        prop_assert_eq!(sum(|r| r.left, &shares.rows), shares.left_total);
        prop_assert_eq!(sum(|r| r.right, &shares.rows), shares.right_total);
    }
}

fn one_side(both: &Difference) -> Difference {
    let rows = both
        .rows
        .iter()
        .map(|r| DiffRow { right: 0, ..*r })
        .collect();
    Difference {
        rows,
        left_total: both.left_total,
        right_total: 0,
    }
}

#[test]
fn time_is_compared_by_what_it_is_divided_by() {
    let (left, right) = (
        "m;a 2000000000\nm;b 1000000000\n",
        "m;a 4000000000\nm;b 6000000000\n",
    );
    let scale = Scale::Per {
        left: 10.0,
        right: 20.0,
        unit: "CPU-ms/s",
    };
    let options = FlameOptions::default();
    let drawn = flame_difference(&view(left, right), &look("l", "r", scale), &options).unwrap();
    let all = frames(&drawn.svg);
    assert_eq!(
        find(&all, "a (").0,
        "a (l 200.00, r 200.00, +0.00 CPU-ms/s)"
    );
    assert_eq!(
        find(&all, "b (").0,
        "b (l 100.00, r 300.00, +200.00 CPU-ms/s)"
    );
    assert_eq!(find(&all, "a (").1, "rgb(236,236,236)");
}

#[test]
fn what_is_said_of_a_place_is_found_by_its_drawn_label_and_not_said_of_a_process_group() {
    let long = "very_long_name::".repeat(40);
    let raw = |end: &str| format!("{long}{end}{long}");
    let text = |n: u64| {
        let (sure, chance) = (raw("a_bc"), "tail\u{feff}\u{ffff}");
        format!("m;{sure} {n}\nm;{chance} 500\nm;other {}\n", 500 - n)
    };
    let mut both = ViewBuilder::default();
    for (n, side) in [(100, Side::Left), (300, Side::Right)] {
        let (parsed, _) = folded::parse(text(n).as_bytes(), "h");
        let mut one = model::profile::Profile::new("on-cpu", parsed.measures.clone());
        // The same stacks in a process group, whose name is odd too.
        one.merge(&parsed).unwrap();
        let mut grouped = model::profile::SeriesTable::default();
        for series in one.series.as_slice() {
            let mut series = series.clone();
            series.process.role = "nginx:\u{ffff}worker".into();
            grouped.intern(&series);
        }
        one.series = grouped;
        both.add(&one, |_| true, 0, side);
    }
    let view = both.build();
    let told: BTreeMap<Vec<String>, Told> = [
        (vec!["m".to_owned()], Told::More),
        (vec!["m".to_owned(), raw("a_bc")], Told::More),
        (
            vec!["m".to_owned(), "tail\u{feff}\u{ffff}".to_owned()],
            Told::More,
        ),
    ]
    .into();
    let look = DifferenceLook {
        told: Some(&told),
        ..look("l\u{1}", "r\u{fffe}", Scale::Shares)
    };
    let drawn = flame_difference(&view, &look, &FlameOptions::default()).unwrap();
    let all = frames(&drawn.svg);
    let unsure: Vec<&str> = all
        .iter()
        .filter(|f| f.0.contains("not to be told"))
        .map(|f| f.0.as_str())
        .collect();
    assert_eq!(unsure.len(), 1, "{unsure:?}");
    assert!(unsure[0].starts_with("other ("), "{unsure:?}");
    assert!(
        find(&all, "nginx:\u{fffd}worker (")
            .0
            .ends_with("+0.00 points)")
    );
    assert!(!drawn.svg.contains(['\u{1}', '\u{fffe}', '\u{ffff}']));
    well_formed(&drawn.svg);
}
