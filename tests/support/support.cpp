// Keeps the support library non-empty until the first shared source.
