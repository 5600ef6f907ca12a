use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Any, Counts, Forever, Gfs, KeepDays, KeepLast, RecoveryWindow, RetentionPolicy, Span, Within,
};
use crate::{Error, ErrorKind, Result};

/// A policy as configuration writes it: `{ daily = 7, weekly = 4, within = "36h" }`.
///
/// A backup stays if any key keeps it. [`build`](Self::build) checks it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySpec {
    /// One for each of so many hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// One for each of so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// One for each of so many ISO weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// One for each of so many months.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// One for each of so many years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// The last so many: [`KeepLast`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// All that are at most so many days older than the newest: [`KeepDays`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// All that are at most so much older than the newest: [`Within`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// All that point-in-time recovery over so much needs: [`RecoveryWindow`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    /// All of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forever: bool,
    /// The IANA time zone of hours, days, weeks, months and years; UTC if not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The oldest of a bucket stays instead of the newest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_oldest: bool,
    /// Hours, days, weeks, months and years without a backup count too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub calendar: bool,
}

impl PolicySpec {
    /// The policy. What keeps nothing, and a key that changes nothing, is
    /// [`Invalid`](ErrorKind::Invalid), with the key in the message.
    pub fn build(&self) -> Result<Arc<dyn RetentionPolicy>> {
        let mut policies: Vec<Arc<dyn RetentionPolicy>> = Vec::new();
        let gfs = self.gfs()?;
        if let Some(zone) = &self.timezone
            && gfs.is_none()
            && self.days.is_none()
        {
            return Err(idle(&format!("timezone = {zone:?}"), ", or `days`"));
        }
        if gfs.is_none() && self.keep_oldest {
            return Err(idle("keep_oldest", ""));
        }
        if gfs.is_none() && self.calendar {
            return Err(idle("calendar", ""));
        }
        if let Some(gfs) = gfs {
            policies.push(Arc::new(gfs));
        }
        if let Some(count) = self.last {
            policies.push(Arc::new(KeepLast::new(count)?));
        }
        if let Some(days) = self.days {
            let days = KeepDays::new(days)?;
            policies.push(Arc::new(match &self.timezone {
                Some(zone) => days.in_zone(zone)?,
                None => days,
            }));
        }
        if let Some(length) = self.within {
            policies.push(Arc::new(Within::new(length)?));
        }
        if let Some(length) = self.window {
            policies.push(Arc::new(RecoveryWindow::new(length)?));
        }
        if self.forever {
            policies.push(Arc::new(Forever));
        }
        match policies.len() {
            0 => Err(Error::new(
                ErrorKind::Invalid,
                "retention keeps nothing; set one of hourly, daily, weekly, monthly, yearly, \
                 last, days, within, window, or forever = true",
            )),
            1 => Ok(policies.remove(0)),
            _ => Ok(Arc::new(Any::new(policies)?)),
        }
    }

    fn gfs(&self) -> Result<Option<Gfs>> {
        let counts = [
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("retention `{name}` must be at least 1; leave it out for none"),
            ));
        }
        if counts.iter().all(|(_, count)| count.is_none()) {
            return Ok(None);
        }
        let [hourly, daily, weekly, monthly, yearly] = counts.map(|(_, n)| n.unwrap_or(0));
        let mut gfs = Gfs::new(Counts {
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        })?;
        if let Some(zone) = &self.timezone {
            gfs = gfs.in_zone(zone)?;
        }
        if self.keep_oldest {
            gfs = gfs.keep_oldest();
        }
        if self.calendar {
            gfs = gfs.by_calendar();
        }
        Ok(Some(gfs))
    }
}

fn idle(key: &str, besides: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!(
            "retention `{key}` changes nothing without hourly, daily, weekly, monthly or \
             yearly{besides}"
        ),
    )
}
