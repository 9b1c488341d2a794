"""What people read: numbers, tables and pages made from a summary. Nothing here prints."""
