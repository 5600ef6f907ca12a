//! Cron expressions: five fields, checked here so that a mistake shows before the night.

/// Checks `minute hour day month weekday`. The error says which field and what fits.
pub(crate) fn check(text: &str) -> Result<(), String> {
    const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
        ("minute", 0, 59, &[]),
        ("hour", 0, 23, &[]),
        ("day of month", 1, 31, &[]),
        ("month", 1, 12, &MONTHS),
        ("day of week", 0, 7, &DAYS),
    ];
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return Err(format!(
            "{text:?} has {} fields, a schedule has 5: minute hour day month weekday, \
             such as \"0 2 * * *\"",
            words.len()
        ));
    }
    for (word, (name, low, high, names)) in words.iter().zip(FIELDS) {
        for item in word.split(',') {
            if !fits(item, low, high, names) {
                return Err(format!(
                    "{word:?} is no {name}; write *, */2, {low} to {high}, a range or a list"
                ));
            }
        }
    }
    Ok(())
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn fits(item: &str, low: u32, high: u32, names: &[&str]) -> bool {
    let value = |text: &str| -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        match names.iter().position(|n| *n == lower) {
            Some(index) => u32::try_from(index).ok().map(|i| i + low),
            None => text
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())?
                .filter(|n| (low..=high).contains(n)),
        }
    };
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let steps = step.is_none_or(|s| s.parse::<u32>().is_ok_and(|n| n > 0 && n <= high));
    steps
        && match range.split_once('-') {
            _ if range == "*" => true,
            Some((from, to)) => matches!((value(from), value(to)), (Some(a), Some(b)) if a <= b),
            None => step.is_none() && value(range).is_some(),
        }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn usual_schedules_pass() {
        for good in [
            "0 2 * * *",
            "*/15 * * * *",
            "0 0-6/2 1,15 * mon-fri",
            "5 4 * JAN 7",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_never_comes_is_refused() {
        for bad in [
            "",
            "0 2 * *",
            "60 2 * * *",
            "0 24 * * *",
            "0 2 0 * *",
            "0 2 * foo *",
            "0 2 * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "@daily",
            "0 2 * * * *",
            "+1 2 * * *",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
