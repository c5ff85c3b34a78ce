//! Some seconds of a run. In: a window, or how hot a worker must be. Out: inputs of those seconds
//! only. Never: seconds of an input that has none.

use super::flame::parse_percent;
use super::input::Input;
use super::output::usage;
use clap::Args;
use compare::{heat, of_seconds};

/// Which seconds are meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which seconds")]
pub struct SecondArgs {
    /// From this second of the capture on, the first is 0
    #[arg(long, value_name = "SECOND")]
    from_second: Option<u32>,
    /// Up to this second, itself not included
    #[arg(long, value_name = "SECOND")]
    to_second: Option<u32>,
    /// Only seconds of a host in which one of its workers used more than this part of a CPU
    #[arg(long, value_name = "PCT", value_parser = parse_percent)]
    above: Option<f64>,
}

impl SecondArgs {
    /// Whether any were named.
    pub fn some(&self) -> bool {
        self.from_second.is_some() || self.to_second.is_some() || self.above.is_some()
    }

    /// What the chosen seconds are called, and what the others are: of others first.
    pub fn names(&self) -> [String; 2] {
        let mut words = Vec::new();
        match (self.from_second, self.to_second) {
            (Some(from), Some(to)) => words.push(format!("seconds {from} to {to}")),
            (Some(from), None) => words.push(format!("from second {from}")),
            (None, Some(to)) => words.push(format!("up to second {to}")),
            (None, None) => {}
        }
        if let Some(above) = self.above {
            words.push(format!("seconds above {:.0} %", above * 100.0));
        }
        if words.is_empty() {
            return ["all".to_owned(), "all again".to_owned()];
        }
        ["the other seconds".to_owned(), words.join(", ")]
    }

    /// Leaves both sides the chosen seconds; where both are the same word, the left side the others.
    pub fn choose(&self, sides: &mut [Input; 2], same: bool) -> anyhow::Result<()> {
        if self.some() {
            let [left, right] = sides;
            self.take(left, !same)?;
            self.take(right, true)?;
        }
        Ok(())
    }

    /// Leaves an input the chosen seconds, or the others.
    pub fn take(&self, input: &mut Input, chosen: bool) -> anyhow::Result<()> {
        if !self.some() {
            return Ok(());
        }
        if input.profile.cells.is_empty() {
            return Err(usage(format!(
                "{} has no seconds; runs and ffz files have",
                input.name
            )));
        }
        let heat = heat(&input.profile, |s| input.part.has(s));
        if self.above.is_some() && !heat.cpus {
            return Err(usage(format!(
                "{} has no CPU time, so --above cannot tell which seconds were hot; use --from-second and --to-second",
                input.name
            )));
        }
        let hotter = self.above.map(|above| heat.hotter(above));
        let from = self.from_second.unwrap_or(0);
        let to = self.to_second.unwrap_or(u32::MAX);
        let wanted = |host: &str, second: u32| {
            let inside = (from..to).contains(&second);
            let hot = hotter
                .as_ref()
                .is_none_or(|hot| hot.contains(&(host, second)));
            (inside && hot) == chosen
        };
        input.profile = of_seconds(std::mem::take(&mut input.profile), wanted);
        Ok(())
    }
}
