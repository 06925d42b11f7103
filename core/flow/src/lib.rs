//! The flow record, its filters and its printed forms.
