//! An S3 bucket as a place that keeps backups.
