"""What the programs are made of besides our own code: lists, licences, known vulnerabilities. Not part of any package."""
