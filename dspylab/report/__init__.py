"""What people read: numbers, tables and pages made from a summary. Pure: nothing here prints."""
