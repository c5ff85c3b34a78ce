//! Every value that crosses the wire comes back as it was.

use fleetflame_proto::v1;
use model::coverage::{CaptureStats, ProcessPlace};
use model::host::{EngineReport, GatewayProcess};
use model::job::{EngineChoice, Event, Pick, Probe, Target};
use model::order::{Budgets, Simulated};
use model::script::{Printed, Script, ScriptModule, StackUnit};
use model::{CaptureOrder, Finding, FindingCode, HostName, HostReport, RunId};
use proptest::prelude::*;

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Nginx),
        (1..u32::MAX).prop_map(Target::Pid),
        "/[a-z/]{1,20}".prop_map(Target::Exe),
        "[ -~]{1,20}".prop_map(Target::Cmd),
    ]
}

proptest! {
    #[test]
    fn orders(ms in 0..(1_u64 << 48), random in any::<u128>(), hz in any::<u32>(), targets in prop::collection::vec(any_target(), 1..5), n in 1..9_u32) {
        let order = CaptureOrder {
            run: RunId::from_parts(ms, random),
            host: HostName::new("kong-1").unwrap(),
            engine: EngineChoice::Native,
            probe: Probe::OnCpu,
            event: Event::CpuClock,
            targets,
            pick: Pick::Busiest(n),
            sample_hz: hz,
            duration_ms: ms,
            kernel: hz.is_multiple_of(2),
            min_wait_us: hz,
            uri_segments: n,
            budgets: Budgets { cpu_pct_max: n, memory_mb_max: hz, stacks_max: 3, output_mb_max: 4 },
            lease_ms: 4_000,
            script: hz.is_multiple_of(5).then(|| Script {
                file: "a.sxx".into(),
                text: "probe begin {}\n".into(),
                arguments: [("time".to_owned(), "10".to_owned())].into(),
                modules: [("a.b".to_owned(), ScriptModule { file: "tapset/a/b.sxx".into(), text: "global x\n".into() })].into(),
                stack_unit: StackUnit::Bytes,
            }),
            simulated: hz.is_multiple_of(3).then_some(Simulated { seed: ms, processes: n, stacks: 5, child: true, arm_ms: 6 }),
        };
        prop_assert_eq!(CaptureOrder::try_from(v1::CaptureOrder::from(&order)).unwrap(), order);
    }
}

#[test]
fn reports_stats_and_findings() {
    let finding = Finding::new(FindingCode::KernelNamesHidden, "kptr_restrict is 2");
    let report = HostReport {
        hostname: "kong-1".into(),
        cpus: 8,
        engines: vec![EngineReport {
            engine: "native".into(),
            can_run: true,
            how: "mode A".into(),
            findings: vec![finding.clone()],
            events: vec!["cpu-clock".into(), "cycles".into()],
            probes: vec!["on-cpu".into(), "off-cpu".into()],
        }],
        gateways: vec![GatewayProcess {
            pid: 1,
            parent_pid: 2,
            role: "nginx: master".into(),
            exe: "/n".into(),
        }],
        findings: vec![finding],
        ..HostReport::default()
    };
    assert_eq!(HostReport::from(v1::HostReport::from(&report)), report);
    let stats = CaptureStats {
        samples: 1,
        lost: 2,
        mode: "A".into(),
        pause_p99_ns: 9,
        lua_segments: 10,
        lua_racy: 11,
        lua_failed: 12,
        places: vec![ProcessPlace {
            pid: 13,
            start_ticks: 14,
            group: "/system.slice/nginx.service".into(),
            container: "ab".into(),
        }],
        printed: vec![Printed {
            at_ms: 3,
            text: "a\n".into(),
        }],
        ..Default::default()
    };
    assert_eq!(CaptureStats::from(v1::CaptureStats::from(&stats)), stats);
    // Of what a hostile agent says only so much is kept.
    let mut said = v1::CaptureStats::from(&stats);
    said.places = vec![said.places[0].clone(); 5_000];
    said.places[0].group = "x\n".repeat(100_000);
    let kept = CaptureStats::from(said).places;
    assert_eq!(
        (kept.len(), kept[0].group.as_str()),
        (256, "x".repeat(512).as_str())
    );
}

#[test]
fn hostile_orders_are_refused() {
    let good = v1::CaptureOrder {
        run: RunId::from_parts(1, 2).to_string(),
        host: "a".into(),
        engine: "native".into(),
        probe: "on-cpu".into(),
        event: "cpu-clock".into(),
        targets: vec!["nginx".into()],
        pick: "all".into(),
        budgets: Some(v1::Budgets::default()),
        ..Default::default()
    };
    assert!(CaptureOrder::try_from(good.clone()).is_ok());
    for bad in [
        v1::CaptureOrder {
            run: "../../x".into(),
            ..good.clone()
        },
        v1::CaptureOrder {
            host: "../etc".into(),
            ..good.clone()
        },
        v1::CaptureOrder {
            targets: vec![],
            ..good.clone()
        },
        v1::CaptureOrder {
            targets: vec!["nginx".into(); 5_000],
            ..good.clone()
        },
        v1::CaptureOrder {
            budgets: None,
            ..good.clone()
        },
        v1::CaptureOrder {
            engine: "$(reboot)".into(),
            ..good
        },
    ] {
        assert!(CaptureOrder::try_from(bad).is_err());
    }
}
