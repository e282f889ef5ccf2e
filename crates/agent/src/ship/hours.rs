//! What the hours of a policy allow: pure decisions, and the local clock that
//! they go by.

use domain::calendar::{self, BandwidthRule, Opening, WeekMinute, Window};
use domain::units::ByteCount;
use jiff::Zoned;
use wire::replication::ShippingPolicy;

/// What this host's clock shows, in its own time zone.
pub(super) fn local() -> WeekMinute {
    let now = Zoned::now();
    let part = |value: i8| u8::try_from(value).unwrap_or(0);
    WeekMinute::new(
        part(now.weekday().to_monday_zero_offset()),
        part(now.hour()),
        part(now.minute()),
    )
}

/// Bytes a second that may be sent; no limit if none.
pub(super) fn limit(policy: &ShippingPolicy, at: WeekMinute) -> Option<u64> {
    let rule = |rule: &wire::replication::BandwidthRule| {
        let limit = rule.bytes_per_second.map(ByteCount::new);
        Some(BandwidthRule { window: rule.window.to_domain()?, limit })
    };
    let rules: Vec<BandwidthRule> = policy.calendar.iter().filter_map(rule).collect();
    let otherwise = policy.bytes_per_second.map(ByteCount::new);
    calendar::limit_at(&rules, otherwise, at).map(ByteCount::bytes)
}

/// When a resynchronisation may go on.
pub(super) fn resynchronisation(policy: &ShippingPolicy, at: WeekMinute) -> Opening {
    let windows = policy.resynchronise_in.iter();
    let windows: Vec<Window> = windows.filter_map(|window| window.to_domain()).collect();
    calendar::opening(&windows, at)
}

#[cfg(test)]
mod tests {
    use wire::replication::Compression;

    use super::*;

    #[test]
    fn a_policy_is_asked_by_its_hours() {
        let window: Window = "mon-fri 08:00-18:00".parse().unwrap();
        let rule =
            wire::replication::BandwidthRule { window: window.into(), bytes_per_second: Some(7) };
        let policy = ShippingPolicy {
            every_seconds: 30,
            app_consistent_seconds: None,
            freeze_seconds: 10,
            compression: Compression::Fast,
            bytes_per_second: Some(100),
            calendar: vec![rule],
            resynchronise_in: vec![window.into()],
        };
        let at = |hour| WeekMinute::new(0, hour, 0);
        assert_eq!((limit(&policy, at(9)), limit(&policy, at(7))), (Some(7), Some(100)));
        assert_eq!(resynchronisation(&policy, at(9)), Opening::Now);
        assert_eq!(resynchronisation(&policy, at(7)), Opening::In(60));
    }
}
