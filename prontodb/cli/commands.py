"""The one table of commands: where each is handled, what it is for, and under which heading it is listed."""

from __future__ import annotations

DATA = "Entries"
LISTING = "Listing"
LIFETIME = "Lifetimes"
ADDRESS = "Addresses"
SESSION = "Sessions"
BACKUP = "Backups and jobs"
TRANSFER = "In and out"
ACCESS = "Access"
AUDIT = "Audit"
ABOUT = "About this root"

GROUPS = (DATA, LISTING, LIFETIME, ADDRESS, SESSION, BACKUP, TRANSFER, ACCESS, AUDIT, ABOUT)

COMMANDS = {
    "set": ("data", "do_set", "store a value: an argument, or what is piped", DATA),
    "get": ("data", "do_get", "print a value, exactly as stored", DATA),
    "del": ("data", "do_del", "delete entries", DATA),
    "delete": ("data", "do_del", "the same as del", DATA),
    "incr": ("data", "do_incr", "add to a whole number and print the sum", DATA),
    "cas": ("data", "do_cas", "set a value only if the present one is as expected", DATA),
    "copy": ("copying", "do_copy", "copy an entry, also to another address", DATA),
    "keys": ("listing", "do_keys", "print keys, one a line, sorted", LISTING),
    "scan": ("listing", "do_scan", "print key=value lines", LISTING),
    "ls": ("listing", "do_scan", "the same as scan", LISTING),
    "projects": ("listing", "do_projects", "print the projects that hold keys", LISTING),
    "namespaces": ("listing", "do_namespaces", "print the namespaces of one project", LISTING),
    "nss": ("listing", "do_nss", "print every namespace as project.namespace", LISTING),
    "watch": ("watching", "do_watch", "print changes as they happen", LISTING),
    "ttl": ("lifetimes", "do_ttl", "print how many seconds an entry has left", LIFETIME),
    "persist": ("lifetimes", "do_persist", "let an entry live for ever", LIFETIME),
    "touch": ("lifetimes", "do_touch", "begin an entry's lifetime anew", LIFETIME),
    "create-cache": ("lifetimes", "do_create_cache", "give a namespace a default lifetime", LIFETIME),
    "address list": ("addresses", "do_address_list", "list all addresses of this root", ADDRESS),
    "address show": ("addresses", "do_address_show", "describe one address", ADDRESS),
    "address create": ("addresses", "do_address_create", "make an empty address", ADDRESS),
    "address rename": ("addresses", "do_address_rename", "give an address another name", ADDRESS),
    "address delete": ("addresses", "do_address_delete", "delete an address and all it holds", ADDRESS),
    "address encrypt": ("sealing", "do_address_encrypt", "encrypt an address", ADDRESS),
    "address decrypt": ("sealing", "do_address_decrypt", "make an encrypted address plain", ADDRESS),
    "address rekey": ("sealing", "do_address_rekey", "give an encrypted address a new secret", ADDRESS),
    "address history": ("addresses", "do_address_history", "keep the values of an address's changes, or not", ADDRESS),
    "address check": ("addresses", "do_address_check", "look for damage at one address", ADDRESS),
    "cursor list": ("addresses", "do_cursor_list", "list the cursors of the user", ADDRESS),
    "cursor active": ("addresses", "do_cursor_active", "print the address that commands act on", ADDRESS),
    "session list": ("sessions", "do_session_list", "list who is at which address now", SESSION),
    "session show": ("sessions", "do_session_show", "describe one session", SESSION),
    "session end": ("sessions", "do_session_end", "ask a session to end, or put it out", SESSION),
    "run": ("running", "do_run", "run a command with an address to itself", SESSION),
    "backup": ("backups", "do_backup", "the same as backup create", BACKUP),
    "backup create": ("backups", "do_backup_create", "back up all addresses, or some", BACKUP),
    "backup list": ("backups", "do_backup_list", "list the backups", BACKUP),
    "backup show": ("backups", "do_backup_show", "describe one backup", BACKUP),
    "backup verify": ("backups", "do_backup_verify", "test that backups are whole", BACKUP),
    "backup prune": ("backups", "do_backup_prune", "remove what retention does not keep", BACKUP),
    "restore": ("restoring", "do_restore", "bring addresses back from a backup", BACKUP),
    "jobs list": ("jobs", "do_jobs_list", "list the jobs, their last and next runs", BACKUP),
    "jobs run": ("jobs", "do_jobs_run", "run the jobs on schedule, until it is ended", BACKUP),
    "jobs once": ("jobs", "do_jobs_once", "run one job now", BACKUP),
    "jobs pause": ("jobs", "do_jobs_pause", "run no jobs, or not that one, until resumed", BACKUP),
    "jobs resume": ("jobs", "do_jobs_resume", "go on with what was paused", BACKUP),
    "jobs history": ("jobs", "do_jobs_history", "list the last runs", BACKUP),
    "export": ("transfer", "do_export", "print entries as JSON lines", TRANSFER),
    "import": ("transfer", "do_import", "store entries from JSON lines", TRANSFER),
    "migrate": ("migrating", "do_migrate", "bring an old database, folder or backup over", TRANSFER),
    "access list": ("access", "do_access_list", "print the access rules", ACCESS),
    "access add": ("access", "do_access_add", "give a principal rights at addresses", ACCESS),
    "access remove": ("access", "do_access_remove", "take a grant away", ACCESS),
    "access explain": ("access", "do_access_explain", "say whether something is allowed, and by which grant", ACCESS),
    "token mint": ("tokens", "do_token_mint", "print a new token for an address", ACCESS),
    "token narrow": ("tokens", "do_token_narrow", "print a lesser token made of one, offline", ACCESS),
    "token show": ("tokens", "do_token_show", "say what a token allows, and whether it is valid", ACCESS),
    "token revoke": ("tokens", "do_token_revoke", "end all tokens of an address", ACCESS),
    "secret list": ("sealing", "do_secret_list", "list the key records of encrypted addresses", ACCESS),
    "secret make": ("sealing", "do_secret_make", "make the key that seals them", ACCESS),
    "secret export": ("sealing", "do_secret_export", "print a key record, for safe-keeping", ACCESS),
    "secret import": ("sealing", "do_secret_import", "take an exported key record back", ACCESS),
    "secret rotate": ("sealing", "do_secret_rotate", "seal all key records with another key", ACCESS),
    "audit verify": ("auditing", "do_audit_verify", "test that the journals are as they were written", AUDIT),
    "audit show": ("auditing", "do_audit_show", "print who changed what, and when", AUDIT),
    "audit anchors": ("auditing", "do_audit_anchors", "print what the journals are held against", AUDIT),
    "audit accept": ("auditing", "do_audit_accept", "take what lies at an address for right", AUDIT),
    "settings show": ("about", "do_settings_show", "print every setting of this root", ABOUT),
    "settings check": ("about", "do_settings_check", "say whether the settings file is right", ABOUT),
    "doctor": ("about", "do_doctor", "examine this root, and repair it on request", ABOUT),
    "stress": ("stressing", "do_stress", "play a fleet of agents with faults, and judge what happened", ABOUT),
    "version": ("about", "do_version", "print the versions of everything involved", ABOUT),
    "inspect": ("about", "do_inspect", "list all commands, for people and programs", ABOUT),
    "help": ("help", "do_help", "explain ProntoDB or one command", ABOUT),
}
"""Name: (module of this package, handler, line of help, heading). Handlers take `Args`, return an exit code."""

FAMILIES = frozenset(name.partition(" ")[0] for name in COMMANDS if " " in name)
"""First words of commands of two words."""

VERBATIM = frozenset(("stress",))
"""Commands with a language of their own: what follows their name is left as it is."""
