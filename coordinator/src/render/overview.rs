//! Pictures of a whole fleet: who was hot when, and who differs where. In: heat and rankings. Out:
//! self-contained SVG. Never: a host left out in silence, markup from a name, a colour alone where a
//! number is needed: every cell has a tooltip.

use super::dress::escape;
use super::table::count;
use compare::{Heat, HeatRow, Ranking};
use std::fmt::Write as _;

/// Most rows of a picture.
const ROWS_MAX: usize = 400;
/// Most workers of a heat map: the hottest.
const WORKERS_MAX: usize = 200;
/// Most columns of seconds; more are joined.
const COLUMNS_MAX: usize = 900;
/// Most cells of a heat map, each of which has some 170 bytes: with more workers seconds are joined.
const CELLS_MAX: usize = 20_000;
/// Width that the cells of a heat map have together, in pixels.
const CELLS_WIDTH: f64 = 960.0;
/// Most places of the overview.
const PLACES_MAX: usize = 12;
/// Height of a row, in pixels.
const ROW: usize = 18;
/// Room for names on the left, in pixels, and letters that fit into it.
const NAMES: usize = 230;
const NAME_LETTERS: usize = 36;

/// The heat map: a row for each worker, a column for each second.
#[must_use]
pub fn heat_svg(heat: &Heat, title: &str, coverage: &str) -> String {
    let seconds = heat.rows.iter().map(|r| r.busy.len()).max().unwrap_or(0);
    let rows = hottest(&heat.rows);
    let columns_max = (CELLS_MAX / rows.len().max(1)).min(COLUMNS_MAX);
    let joined = seconds.div_ceil(columns_max).max(1);
    let columns = seconds.div_ceil(joined);
    let width = (CELLS_WIDTH / columns.max(1) as f64).min(24.0);
    let most = rows.iter().flat_map(|r| r.busy.iter().flatten());
    let most = most.fold(0.01_f64, |a, b| a.max(*b));
    let unit = if heat.cpus { "CPU" } else { "samples" };
    let mut legend = format!("pale: idle; dark red: {most:.2} {unit} in a second");
    if joined > 1 {
        let _ = write!(legend, "; a cell is the mean of {joined} seconds");
    }
    let left = heat.rows.len() - rows.len();
    if left > 0 {
        let _ = write!(
            legend,
            "; {} less hot workers are not drawn",
            count(left as u64)
        );
    }
    let mut out = head(
        NAMES + 20 + CELLS_WIDTH as usize,
        112 + rows.len() * ROW,
        title,
        coverage,
    );
    let _ = writeln!(out, "<text x=\"20\" y=\"68\" fill=\"#555\">{legend}</text>");
    if rows.is_empty() {
        out.push_str("<text x=\"20\" y=\"86\">no seconds were captured</text>\n</svg>\n");
        return out;
    }
    let mut host = "";
    for (i, row) in rows.iter().enumerate() {
        let y = 84 + i * ROW;
        if row.host != host {
            host = &row.host;
            let _ = writeln!(
                out,
                "<line x1=\"8\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#bbb\"/>",
                NAMES + CELLS_WIDTH as usize
            );
        }
        let name = format!("{} {}", row.host, row.worker);
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{}\">{}</text>",
            y + 13,
            short(&name)
        );
        for (column, values) in row.busy.chunks(joined).enumerate() {
            let there: Vec<f64> = values.iter().flatten().copied().collect();
            if there.is_empty() {
                continue; // not captured: no cell
            }
            let busy = there.iter().sum::<f64>() / there.len() as f64;
            let (r, g, b) = heat_colour(busy / most);
            let second = heat.first as usize + column * joined;
            let _ = writeln!(
                out,
                "<rect x=\"{:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{}\" fill=\"rgb({r},{g},{b})\"><title>{}, second {second}: {busy:.2} {unit}</title></rect>",
                NAMES as f64 + column as f64 * width,
                y + 1,
                (width - 0.4).max(0.4),
                ROW - 2,
                escape(&name),
            );
        }
    }
    let y = 84 + rows.len() * ROW + 16;
    for part in 0..=6 {
        let column = columns * part / 6;
        let x = NAMES as f64 + column as f64 * width;
        let second = heat.first as usize + column * joined;
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#555\">{second} s</text>"
        );
        if columns < 6 {
            break;
        }
    }
    out.push_str("</svg>\n");
    out
}

/// The workers that were hottest, in the order of all: those with the busiest second, and of those with
/// equal ones the busiest in all.
fn hottest(rows: &[HeatRow]) -> Vec<&HeatRow> {
    let heat = |row: &HeatRow| {
        let busy = || row.busy.iter().flatten();
        (busy().fold(0.0_f64, |a, b| a.max(*b)), busy().sum::<f64>())
    };
    let mut order: Vec<(usize, (f64, f64))> = rows.iter().map(heat).enumerate().collect();
    order.sort_by(|(i, a), (k, b)| {
        let by_second = b.0.total_cmp(&a.0);
        by_second.then(b.1.total_cmp(&a.1)).then(i.cmp(k))
    });
    order.truncate(WORKERS_MAX);
    order.sort_unstable_by_key(|(i, _)| *i);
    order.into_iter().map(|(i, _)| &rows[i]).collect()
}

/// The overview: a row for each host, a column for each place in which a host stands out.
#[must_use]
pub fn overview_svg(ranking: &Ranking, title: &str, coverage: &str) -> String {
    let mut places: Vec<(&[String], f64)> = Vec::new();
    for entry in &ranking.entries {
        for place in &entry.places {
            let weight = place.gap.delta.abs();
            match places.iter_mut().find(|(path, _)| *path == place.path) {
                Some(known) => known.1 = known.1.max(weight),
                None => places.push((&place.path, weight)),
            }
        }
    }
    places.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let places_left = places.len().saturating_sub(PLACES_MAX);
    places.truncate(PLACES_MAX);
    let most = places.first().map_or(1.0, |p| p.1).max(1e-9);
    let cell = 76;
    let entries = &ranking.entries[..ranking.entries.len().min(ROWS_MAX)];
    let top = 196;
    let width = NAMES + 40 + cell * places.len().max(6) + 160;
    let mut out = head(width, top + 50 + entries.len() * ROW, title, coverage);
    let unit = ranking.per.unit_of_difference();
    let _ = writeln!(
        out,
        "<text x=\"20\" y=\"76\" fill=\"#555\">difference from the other hosts in {unit}; red: more, blue: less; bold: unlike the others; a dot: may be chance</text>"
    );
    for (i, (path, _)) in places.iter().enumerate() {
        let label = path.last().map_or("", String::as_str);
        let x = NAMES + i * cell + cell / 2;
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{}\" transform=\"rotate(-35 {x} {})\"><title>{}</title>{}</text>",
            top - 8,
            top - 8,
            escape(&path.join(" → ")),
            shortened(label, 30)
        );
    }
    for (i, entry) in entries.iter().enumerate() {
        let y = top + i * ROW;
        let weight = if entry.odd {
            " font-weight=\"bold\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{}\"{weight}>{}</text>",
            y + 13,
            short(&entry.host)
        );
        for (at, (path, _)) in places.iter().enumerate() {
            let x = NAMES + at * cell;
            let Some(place) = entry.places.iter().find(|p| p.path == *path) else {
                let _ = writeln!(
                    out,
                    "<rect x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#f3f3f3\"/>",
                    y + 1,
                    cell - 2,
                    ROW - 2
                );
                continue;
            };
            let gap = &place.gap;
            let sure = entry.odd || (ranking.spread.is_none() && gap.tells());
            let (r, g, b) = if sure {
                signed_colour(gap.delta / most)
            } else {
                (240, 240, 240)
            };
            let dot = if sure { "" } else { " ·" };
            let _ = writeln!(
                out,
                "<g><title>{}: {:+.2} ({:+.2} to {:+.2}) {unit}</title><rect x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"rgb({r},{g},{b})\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:+.1}{dot}</text></g>",
                escape(&format!("{}, {}", entry.host, path.join(" → "))),
                gap.delta,
                gap.low,
                gap.high,
                y + 1,
                cell - 2,
                ROW - 2,
                x + cell - 8,
                y + 13,
                gap.delta
            );
        }
    }
    let left = ranking.entries.len() - entries.len();
    let y = top + entries.len() * ROW + 20;
    let missing = &ranking.without_samples;
    let mut notes = Vec::new();
    if left > 0 {
        notes.push(format!("{left} more hosts are not drawn"));
    }
    if places_left > 0 {
        notes.push(format!("{places_left} more places are not drawn"));
    }
    if !missing.is_empty() {
        notes.push(format!("without samples: {}", missing.join(", ")));
    }
    if entries.is_empty() {
        notes.push(ranking.note.clone());
    }
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"{y}\" fill=\"#555\">{}</text>\n</svg>",
        shortened(&notes.join("; "), 150)
    );
    out
}

fn head(width: usize, height: usize, title: &str, coverage: &str) -> String {
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n<svg version=\"1.1\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"20\" y=\"28\" font-size=\"17\">{}</text>\n\
         <text x=\"20\" y=\"50\" fill=\"#555\">{}</text>\n",
        shortened(title, 120),
        shortened(coverage, 160)
    )
}

fn short(text: &str) -> String {
    shortened(text, NAME_LETTERS)
}

/// Text for a picture, of at most so many letters.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return escape(text);
    }
    let cut: String = text.chars().take(most - 1).collect();
    escape(&format!("{cut}…"))
}

/// From pale yellow over orange to dark red.
fn heat_colour(part: f64) -> (u8, u8, u8) {
    let part = part.clamp(0.0, 1.0);
    let between = |a: f64, b: f64, at: f64| (a + (b - a) * at) as u8;
    if part < 0.5 {
        let at = part * 2.0;
        (
            between(255.0, 250.0, at),
            between(250.0, 160.0, at),
            between(225.0, 60.0, at),
        )
    } else {
        let at = part * 2.0 - 1.0;
        (
            between(250.0, 150.0, at),
            between(160.0, 10.0, at),
            between(60.0, 30.0, at),
        )
    }
}

/// Red for more, blue for less; small differences can still be seen.
fn signed_colour(part: f64) -> (u8, u8, u8) {
    let faded = (232.0 - 140.0 * part.abs().min(1.0).sqrt()) as u8;
    if part > 0.0 {
        (246, faded, faded)
    } else {
        (faded, faded, 246)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compare::{Gap, HostDifference, PlaceGap};

    #[test]
    fn every_worker_and_second_has_a_cell_and_no_name_is_markup() {
        let row = |host: &str, busy: &[Option<f64>]| HeatRow {
            host: host.into(),
            worker: "nginx: worker 7".into(),
            busy: busy.to_vec(),
        };
        let heat = Heat {
            first: 3,
            rows: vec![
                row("<b>a</b>", &[Some(0.0), Some(1.0)]),
                row("b", &[None, Some(0.5)]),
            ],
            cpus: true,
        };
        let svg = heat_svg(&heat, "t", "2 of 2 hosts");
        assert_eq!(
            svg.matches("CPU</title>").count(),
            3,
            "what was not captured has no cell"
        );
        assert!(svg.contains("b nginx: worker 7, second 4: 0.50 CPU"));
        assert!(!svg.contains("<b>"));
        assert!(heat_svg(&Heat::default(), "t", "").contains("no seconds"));
        // An hour is drawn within the width.
        let long = Heat {
            first: 0,
            rows: vec![row("a", &vec![Some(0.1); 3_600])],
            cpus: true,
        };
        assert!(heat_svg(&long, "t", "").matches("<rect").count() <= COLUMNS_MAX + 1);
    }

    #[test]
    fn of_a_large_fleet_the_hottest_workers_are_drawn_and_the_rest_is_counted() {
        let row = |i: usize| HeatRow {
            host: format!("h{:03}", i / 8),
            worker: format!("nginx: worker {i}"),
            // One second of a worker that is idle else counts more than a warm minute.
            busy: (0..3_600)
                .map(|s| {
                    Some(if i == 1_234 && s == 77 {
                        0.99
                    } else {
                        0.2 + (i % 97) as f64 / 1_000.0
                    })
                })
                .collect(),
        };
        let heat = Heat {
            first: 0,
            rows: (0..1_600).map(row).collect(),
            cpus: true,
        };
        let svg = heat_svg(&heat, "t", "");
        let cells = svg.matches("CPU</title>").count();
        assert!((15_000..=CELLS_MAX).contains(&cells), "{cells} cells");
        assert!(svg.len() < 5_000_000, "{} bytes", svg.len());
        assert!(
            svg.contains("a cell is the mean of 36 seconds; 1,400 less hot workers are not drawn")
        );
        assert!(svg.contains("nginx: worker 1234, ") && svg.contains("nginx: worker 96, "));
        assert!(!svg.contains("nginx: worker 97, "), "0.2 CPU all the time");
        let at = |worker: &str| svg.find(&format!("nginx: worker {worker}<")).unwrap();
        assert!(
            at("96") < at("193") && at("193") < at("1234"),
            "in the order of hosts"
        );
    }

    #[test]
    fn the_overview_shows_hosts_by_places_with_their_numbers() {
        let gap = Gap {
            host: 30.0,
            rest: 10.0,
            delta: 20.0,
            low: 18.0,
            high: 22.0,
        };
        let place = |name: &str, gap| PlaceGap {
            ways: 1,
            path: vec!["main".into(), name.into()],
            gap,
            part: None,
        };
        let entry = |host: &str, odd, places| HostDifference {
            host: host.into(),
            odd,
            places,
            ..HostDifference::default()
        };
        let small = Gap {
            delta: 0.4,
            low: -1.0,
            high: 2.0,
            ..gap
        };
        let ranking = Ranking {
            entries: vec![
                entry("kong-7", true, vec![place("redis", gap)]),
                entry("kong-1", false, vec![place("gzip", small)]),
            ],
            without_samples: vec!["kong-9".into()],
            spread: Some(0.02),
            ..Ranking::default()
        };
        let svg = overview_svg(&ranking, "t", "c");
        for wanted in [
            "font-weight=\"bold\">kong-7",
            "kong-7, main → redis: +20.00 (+18.00 to +22.00) points",
            "+0.4 ·",
            "without samples: kong-9",
        ] {
            assert!(svg.contains(wanted), "{wanted} is missing in\n{svg}");
        }
    }
}
