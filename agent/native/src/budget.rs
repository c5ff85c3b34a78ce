//! How much memory goes where. In: the budget and the size of the machine. Out: ring, slot and
//! stack sizes. Never: a look at the machine itself, so that 128 CPUs can be planned anywhere.

/// What is to be planned for.
#[derive(Clone, Copy, Debug)]
pub struct BudgetRequest {
    /// Bytes for everything.
    pub budget_bytes: u64,
    /// CPUs that are sampled.
    pub cpus: usize,
    /// Samples in a second and CPU.
    pub sample_hz: u32,
    /// Wished stack copy.
    pub stack_copy_bytes: u32,
    /// Wished stack extension.
    pub stack_extension_bytes: u32,
    /// Page size.
    pub page_bytes: usize,
}

/// The plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Data pages of each ring; a power of two.
    pub ring_pages: usize,
    /// Bytes of stack that the kernel copies.
    pub stack_copy_bytes: u32,
    /// Buffers for samples between the sampler threads and the unwinder.
    pub slots: usize,
    /// Bytes of such a buffer.
    pub slot_bytes: usize,
    /// Buffers for stack extensions.
    pub extensions: usize,
    /// Bytes of an extension.
    pub extension_bytes: usize,
    /// Descriptors that the rings need.
    pub fds: usize,
    /// Bytes of all this.
    pub total_bytes: u64,
    /// Whether the wishes did not fit and were cut.
    pub cut: bool,
}

/// Bytes of a record beside the stack: header, chain (127 kernel frames), registers.
const RECORD_REST: usize = 2048;
/// Largest stack copy: a record's size is a u16 and the kernel trims what does not fit.
const STACK_COPY_MAX: u32 = 60 << 10;
const STACK_COPY_MIN: u32 = 1 << 10;
/// Ring size that one user may map on each CPU without locked-memory rights: 512 KiB and the
/// control page (`kernel.perf_event_mlock_kb`, 516 by default).
const RING_MAX: u64 = 512 << 10;

/// Half of the budget to rings, three eighths to sample buffers, one eighth to extensions.
#[must_use]
pub fn plan(request: &BudgetRequest) -> Budget {
    let cpus = request.cpus.max(1);
    let ring_share = (request.budget_bytes / 2 / cpus as u64).min(RING_MAX);
    let wished = request
        .stack_copy_bytes
        .clamp(STACK_COPY_MIN, STACK_COPY_MAX)
        & !7;
    let mut copy = wished;
    // A ring must take two samples, or one is always lost while another is read.
    while copy > STACK_COPY_MIN && 2 * (u64::from(copy) + RECORD_REST as u64) > ring_share {
        copy = (copy / 2).max(STACK_COPY_MIN) & !7;
    }
    let page = request.page_bytes.max(1);
    let floor = 2 * (copy as usize + RECORD_REST);
    let mut ring_pages = 1;
    while ring_pages * page < floor || (ring_pages * 2 * page) as u64 <= ring_share {
        ring_pages *= 2;
    }
    let slot_bytes = copy as usize + RECORD_REST;
    // Half a second of samples is ample: the unwinder looks every 10 ms.
    let useful = cpus
        .saturating_mul(request.sample_hz as usize)
        .div_ceil(2)
        .max(64);
    let slot_cost = slot_bytes + crate::capture::INTERPOSED_WORDS * 8;
    let affordable = request.budget_bytes * 3 / 8 / slot_cost as u64;
    let slots = usize::try_from(affordable)
        .unwrap_or(usize::MAX)
        .clamp(16, useful);
    let extension_bytes = request.stack_extension_bytes as usize & !4095;
    let extensions = if extension_bytes == 0 {
        0
    } else {
        let affordable = request.budget_bytes / 8 / extension_bytes as u64;
        usize::try_from(affordable)
            .unwrap_or(usize::MAX)
            .clamp(1, slots)
    };
    let rings = (cpus * (ring_pages + 1) * page) as u64;
    let total_bytes = rings + (slots * slot_cost) as u64 + (extensions * extension_bytes) as u64;
    Budget {
        ring_pages,
        stack_copy_bytes: copy,
        slots,
        slot_bytes,
        extensions,
        extension_bytes,
        fds: cpus,
        total_bytes,
        cut: copy < wished || total_bytes > request.budget_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cpus: usize, budget_bytes: u64) -> BudgetRequest {
        BudgetRequest {
            budget_bytes,
            cpus,
            sample_hz: 99,
            stack_copy_bytes: 16 << 10,
            stack_extension_bytes: 256 << 10,
            page_bytes: 4096,
        }
    }

    #[test]
    fn a_host_of_128_cpus_fits_its_budget() {
        // 128 CPUs, 300 workers, 10,000 threads: what is planned depends on CPUs and rate only.
        let plan = plan(&request(128, 64 << 20));
        assert!(plan.total_bytes <= 65 << 20, "{plan:?}");
        assert_eq!(plan.stack_copy_bytes, 16 << 10);
        assert!(plan.fds <= 2 * 128);
        // The unwinder looks every 10 ms; the buffers must last for several of those.
        assert!(plan.slots * 1000 >= 128 * 99 * 50, "{plan:?}");
        assert!(plan.extensions >= 16);
    }

    #[test]
    fn a_small_budget_cuts_the_stack_copy_and_says_so() {
        let small = plan(&request(128, 8 << 20));
        assert!(small.cut && small.stack_copy_bytes < 16 << 10, "{small:?}");
        assert!(small.ring_pages * 4096 >= 2 * small.slot_bytes);
        let tiny = plan(&request(1024, 0));
        assert!(tiny.cut && tiny.slots >= 16 && tiny.stack_copy_bytes >= 1 << 10);
    }

    #[test]
    fn two_cpus_do_not_take_more_than_is_useful() {
        let plan = plan(&request(2, 64 << 20));
        assert!(plan.ring_pages * 4096 <= 512 << 10);
        assert!(plan.ring_pages.is_power_of_two());
        assert_eq!(plan.slots, 99);
        assert!(!plan.cut);
    }
}
