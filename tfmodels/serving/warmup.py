def write_requests(folder, card):
    pass
