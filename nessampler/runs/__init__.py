"""Problems from files, run directories, results and reports: what a person sees."""
