//! Orders over the wire. In: orders. Out: messages, and back.
//! Never: an order that leaves something open.

use super::{BadMessage, bad, run_id};
use crate::v1;
use model::job::URI_SEGMENTS_MAX;
use model::order::{Budgets, Simulated};
use model::script::{
    ARGUMENTS_MAX, MODULES_MAX, SCRIPT_BYTES_MAX, Script, ScriptModule, StackUnit, is_module_name,
};
use model::{CaptureOrder, HostName};

impl From<&CaptureOrder> for v1::CaptureOrder {
    fn from(o: &CaptureOrder) -> Self {
        Self {
            run: o.run.to_string(),
            host: o.host.to_string(),
            engine: o.engine.to_string(),
            probe: o.probe.to_string(),
            event: o.event.to_string(),
            targets: o.targets.iter().map(ToString::to_string).collect(),
            pick: o.pick.to_string(),
            sample_hz: o.sample_hz,
            duration_ms: o.duration_ms,
            kernel: o.kernel,
            min_wait_us: o.min_wait_us,
            uri_segments: o.uri_segments,
            budgets: Some(v1::Budgets {
                cpu_pct_max: o.budgets.cpu_pct_max,
                memory_mb_max: o.budgets.memory_mb_max,
                stacks_max: o.budgets.stacks_max,
                output_mb_max: o.budgets.output_mb_max,
            }),
            lease_ms: o.lease_ms,
            script: o.script.as_ref().map(|s| v1::Script {
                file: s.file.clone(),
                text: s.text.clone(),
                arguments: s
                    .arguments
                    .iter()
                    .map(|(name, value)| v1::ScriptArgument {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
                modules: s
                    .modules
                    .iter()
                    .map(|(name, module)| v1::ScriptModule {
                        name: name.clone(),
                        file: module.file.clone(),
                        text: module.text.clone(),
                    })
                    .collect(),
                stack_unit: s.stack_unit.word().to_owned(),
            }),
            simulated: o.simulated.as_ref().map(|s| v1::Simulated {
                seed: s.seed,
                processes: s.processes,
                stacks: s.stacks,
                child: s.child,
                arm_ms: s.arm_ms,
            }),
        }
    }
}

impl TryFrom<v1::CaptureOrder> for CaptureOrder {
    type Error = BadMessage;
    fn try_from(o: v1::CaptureOrder) -> Result<Self, BadMessage> {
        let budgets = o.budgets.ok_or_else(|| bad("order", "it has no budgets"))?;
        if o.targets.is_empty() || o.targets.len() > 1_024 {
            return Err(bad("order", format!("{} targets", o.targets.len())));
        }
        if o.uri_segments > URI_SEGMENTS_MAX {
            return Err(bad(
                "order",
                format!("{} segments of a path", o.uri_segments),
            ));
        }
        let targets: Result<Vec<_>, String> = o.targets.iter().map(|t| t.parse()).collect();
        Ok(Self {
            run: run_id(&o.run)?,
            host: HostName::new(o.host).map_err(|e| bad("host", e))?,
            engine: o.engine.parse().map_err(|e| bad("engine", e))?,
            probe: o.probe.parse().map_err(|e| bad("probe", e))?,
            event: o.event.parse().map_err(|e| bad("event", e))?,
            targets: targets.map_err(|e| bad("target", e))?,
            pick: o.pick.parse().map_err(|e| bad("pick", e))?,
            sample_hz: o.sample_hz,
            duration_ms: o.duration_ms,
            kernel: o.kernel,
            min_wait_us: o.min_wait_us,
            uri_segments: o.uri_segments,
            budgets: Budgets {
                cpu_pct_max: budgets.cpu_pct_max,
                memory_mb_max: budgets.memory_mb_max,
                stacks_max: budgets.stacks_max,
                output_mb_max: budgets.output_mb_max,
            },
            lease_ms: o.lease_ms,
            script: o.script.map(script).transpose()?,
            simulated: o.simulated.map(|s| Simulated {
                seed: s.seed,
                processes: s.processes,
                stacks: s.stacks,
                child: s.child,
                arm_ms: s.arm_ms,
            }),
        })
    }
}

fn script(s: v1::Script) -> Result<Script, BadMessage> {
    let bytes = s.text.len() + s.modules.iter().map(|m| m.text.len()).sum::<usize>();
    let has_too_many = s.arguments.len() > ARGUMENTS_MAX || s.modules.len() > MODULES_MAX;
    if bytes > SCRIPT_BYTES_MAX || has_too_many {
        let said = format!(
            "{bytes} bytes, {} arguments, {} modules",
            s.arguments.len(),
            s.modules.len()
        );
        return Err(bad("script", said));
    }
    // A module's name becomes a file's.
    if let Some(odd) = s.modules.iter().find(|m| !is_module_name(&m.name)) {
        return Err(bad(
            "script",
            format!("{:?} is no name of a module", odd.name),
        ));
    }
    // They stand in findings and pictures.
    let shown = |file: String| file.chars().filter(|c| !c.is_control()).take(60).collect();
    let stack_unit = match s.stack_unit.as_str() {
        "" => StackUnit::default(),
        word => word.parse().map_err(|e| bad("script", e))?,
    };
    Ok(Script {
        stack_unit,
        file: shown(s.file),
        modules: s
            .modules
            .into_iter()
            .map(|m| {
                let (file, text) = (shown(m.file), m.text);
                (m.name, ScriptModule { file, text })
            })
            .collect(),
        text: s.text,
        arguments: s.arguments.into_iter().map(|a| (a.name, a.value)).collect(),
    })
}
