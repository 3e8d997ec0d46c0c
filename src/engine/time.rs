//! Points in time as engines write them.

/// Seconds since 1970 of `2026-07-28T09:30:00.123456789Z`; 0 when it cannot
/// be read, which is also how engines write "never" (year 1).
#[must_use]
pub fn unix_time(text: &str) -> u64 {
    parse(text).unwrap_or_default()
}

fn parse(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, offset) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next()?.parse().ok()?;
    let minute: i64 = clock.next()?.parse().ok()?;
    let second: i64 = clock.next()?.split('.').next()?.parse().ok()?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds - east(offset)?).ok()
}

/// Seconds that a clock with this offset is ahead of the meridian's.
fn east(offset: &str) -> Option<i64> {
    let Some((hours, minutes)) = offset.split_once(':') else {
        return (offset == "Z").then_some(0);
    };
    let ahead: i64 = hours.parse::<i64>().ok()?.abs() * 3600 + minutes.parse::<i64>().ok()? * 60;
    Some(if hours.starts_with('-') {
        -ahead
    } else {
        ahead
    })
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted_month = (month + 9) % 12;
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_engines_write_them() {
        assert_eq!(unix_time("1970-01-01T00:00:00Z"), 0);
        assert_eq!(unix_time("2000-02-29T00:00:00.000000001Z"), 951_782_400);
        assert_eq!(unix_time("2026-07-28T11:29:59.5+02:00"), 1_785_230_999);
        assert_eq!(unix_time("2026-07-28T08:59:59-00:30"), 1_785_230_999);
        assert_eq!(unix_time("0001-01-01T00:00:00Z"), 0);
        assert_eq!(unix_time("yesterday"), 0);
    }
}
