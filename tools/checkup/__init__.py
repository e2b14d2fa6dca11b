"""What ``visavis doctor`` looks at: one check, one finding."""
