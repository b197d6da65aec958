//! Dates as Python's `strftime` writes them.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const DAY: u64 = 24 * 60 * 60;

/// A day of the Gregorian calendar.
struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From Monday, 0.
    weekday: usize,
}

impl Date {
    /// So many days after 1970-01-01, a Thursday.
    fn after_epoch(days: u64) -> Date {
        let weekday = ((days + 3) % 7) as usize;
        // Whole cycles of 400 years first, so that the loop is short.
        let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
        while left >= year_length(year) {
            left -= year_length(year);
            year += 1;
        }
        let (mut month, mut day) = (0, left);
        while day >= month_length(year, month) {
            day -= month_length(year, month);
            month += 1;
        }
        Date { year, month, day: day + 1, day_of_year: left + 1, weekday }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_length(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn month_length(year: u64, month: usize) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// A time, in seconds since 1970 by UTC, as `format` has it.
///
/// # Errors
/// A directive that isn't known.
pub(super) fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    let date = Date::after_epoch(seconds / DAY);
    let mut written = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            written.push(character);
            continue;
        }
        let directive = characters.next();
        let (bare, directive) = match directive {
            Some('-') => (true, characters.next()),
            other => (false, other),
        };
        let part = directive.and_then(|directive| part(directive, &date, seconds % DAY));
        let Some(part) = part else { return Err(format!("`{format}` has a directive that strftime_now doesn't know")) };
        let whole = part.trim_start_matches('0');
        written.push_str(match bare {
            true if whole.is_empty() => "0",
            true => whole,
            false => &part,
        });
    }
    Ok(written)
}

/// What a directive stands for on a day, so many seconds after its beginning.
fn part(directive: char, date: &Date, seconds: u64) -> Option<String> {
    let &Date { year, month, day, day_of_year, weekday } = date;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS.get(month).copied().unwrap_or_default();
    let day_name = DAYS.get(weekday).copied().unwrap_or_default();
    let short = |name: &str| name.chars().take(3).collect::<String>();
    Some(match directive {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year % 100),
        'm' => format!("{:02}", month + 1),
        'B' => month_name.to_owned(),
        'b' | 'h' => short(month_name),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'j' => format!("{day_of_year:03}"),
        'A' => day_name.to_owned(),
        'a' => short(day_name),
        'u' => (weekday + 1).to_string(),
        'w' => ((weekday + 1) % 7).to_string(),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{second:02}"),
        'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'F' => format!("{year}-{:02}-{day:02}", month + 1),
        'T' => format!("{hour:02}:{minute:02}:{second:02}"),
        'Z' => "UTC".to_owned(),
        'z' => "+0000".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_those_of_python() {
        // datetime.fromtimestamp(seconds, UTC).strftime(format)
        for (seconds, format, expected) in [
            (0, "%A %d %B %Y, %H:%M:%S", "Thursday 01 January 1970, 00:00:00"),
            (1_709_210_096, "%a %-d %b %y %I:%M %p %j", "Thu 29 Feb 24 12:34 PM 060"),
            (951_782_400, "%F %T %u %w", "2000-02-29 00:00:00 2 2"),
            (4_107_542_399, "%Y-%m-%d %e", "2100-02-28 28"),
            (4_107_542_400, "%Y-%m-%d %-H%% %e", "2100-03-01 0%  1"),
            (1_735_689_599, "%d %b %Y", "31 Dec 2024"),
        ] {
            assert_eq!(strftime(format, seconds).as_deref(), Ok(expected));
        }
        assert!(strftime("%", 0).is_err() && strftime("%Q", 0).is_err());
        assert!(strftime("%Y", u64::MAX).is_ok());
    }
}
