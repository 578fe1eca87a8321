"""The audit trail: every change has its record in the journal, and this tells whether the records are as written."""
